"""Writers at once: no deadlock, nothing twice, and counts that are exact."""

import asyncio
import random
from uuid import UUID, uuid4

import asyncpg
import grpc
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_memory.stage import Stub, batch, placed, scattered, towards

Counts = dict[str, tuple[int, int]]


async def counts(database: ClonedDatabase, tenant_id: UUID) -> tuple[Counts, Counts]:
    """How many facts and skills each scope has: what the counters say, and what there is."""
    connection = await asyncpg.connect(database.admin_dsn)
    try:
        said = await connection.fetch(
            "SELECT agent_id || '/' || user_id AS scope, fact_count AS facts, skill_count AS skills, memory_count"
            "  FROM memory.scope_counts WHERE tenant_id = $1 AND memory_count > 0",
            tenant_id,
        )
        there = await connection.fetch(
            "SELECT agent_id || '/' || user_id AS scope, count(*) FILTER (WHERE type = 'fact') AS facts,"
            "       count(*) FILTER (WHERE type = 'skill') AS skills"
            "  FROM memory.memories WHERE tenant_id = $1 GROUP BY 1",
            tenant_id,
        )
    finally:
        await connection.close()
    assert all(row["memory_count"] == row["facts"] + row["skills"] for row in said)
    return (
        {row["scope"]: (row["facts"], row["skills"]) for row in said},
        {row["scope"]: (row["facts"], row["skills"]) for row in there},
    )


async def test_writers_of_the_same_scopes_neither_deadlock_nor_miscount(
    memories: Stub, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    agents = [str(uuid4()) for _ in range(3)]
    users = ["ann", "bob"]
    source = random.Random(7)  # noqa: S311 - test data

    async def write(number: int) -> None:
        new = [
            placed(
                scattered(number),
                agent_id=agent_id,
                user_id=user_id,
                key=str(source.randrange(6)),
                type=source.choice([memory_pb2.MEMORY_TYPE_FACT, memory_pb2.MEMORY_TYPE_SKILL]),
            )
            for agent_id in agents
            for user_id in users
        ]
        source.shuffle(new)
        stored = await memories.StoreMemories(batch(*new))
        for result in stored.results[:2]:
            try:
                await memories.DeleteMemory(pb.DeleteMemoryRequest(memory_id=result.memory.memory_id))
            except grpc.aio.AioRpcError as error:
                # Another writer stored the same memory, and was faster to delete it.
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise

    await asyncio.gather(*[write(number) for number in range(40)])
    said, there = await counts(postgres, tenant_id)
    assert said == there
    assert len(there) > 0


async def test_repeats_at_once_store_once(memories: Stub, postgres: ClonedDatabase, tenant_id: UUID) -> None:
    request = batch(placed(towards(0), key="one"), placed(towards(0), key="two"), request_id=uuid7())
    first, *others = await asyncio.gather(*[memories.StoreMemories(request) for _ in range(8)])
    assert all(other == first for other in others)
    said, there = await counts(postgres, tenant_id)
    assert said == there
    assert list(there.values()) == [(1, 0), (1, 0)]


async def test_first_writers_of_a_key_agree(memories: Stub) -> None:
    agent_id = str(uuid4())
    responses = await asyncio.gather(
        *[
            memories.StoreMemories(batch(placed(towards(number), agent_id=agent_id, key="one", content=f"{number}")))
            for number in range(8)
        ]
    )
    results = [response.results[0] for response in responses]
    assert len({result.memory.memory_id for result in results}) == 1
    outcomes = [result.outcome for result in results]
    assert outcomes.count(memory_pb2.STORE_OUTCOME_CREATED) == 1
    assert outcomes.count(memory_pb2.STORE_OUTCOME_UPDATED) == 7


async def test_deletes_at_once_delete_once(memories: Stub, postgres: ClonedDatabase, tenant_id: UUID) -> None:
    stored = await memories.StoreMemories(batch(placed(towards(0), key="one")))
    request = pb.DeleteMemoryRequest(memory_id=stored.results[0].memory.memory_id)
    ended = await asyncio.gather(*[memories.DeleteMemory(request) for _ in range(6)], return_exceptions=True)
    assert sum(isinstance(answer, pb.DeleteMemoryResponse) for answer in ended) == 1
    said, there = await counts(postgres, tenant_id)
    assert said == there == {}
