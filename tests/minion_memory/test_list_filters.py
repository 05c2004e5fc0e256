"""ListMemories by labels and session, and what is no longer so."""

import time
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase

from tests.minion_memory.stage import Stub, batch, connected, placed, towards


async def stored(memories: Stub, **fields: Any) -> str:
    return (await memories.StoreMemories(batch(placed(towards(0), **fields)))).results[0].memory.memory_id


async def listed(memories: Stub, **filters: Any) -> list[str]:
    """All pages of a list, two memories a page."""
    seen: list[str] = []
    token, first = "", True
    while first or token:
        page = await memories.ListMemories(pb.ListMemoriesRequest(page_size=2, page_token=token, **filters))
        seen += [memory.memory_id for memory in page.memories]
        token, first = page.next_page_token, False
    return seen


async def test_list_by_labels_pages_newest_first(memories: Stub, strangers: Stub) -> None:
    agent_id, other_agent = str(uuid4()), str(uuid4())
    both = [await stored(memories, agent_id=agent_id, key=str(n), labels={"a": "1", "b": "2"}) for n in range(5)]
    one = [await stored(memories, agent_id=agent_id, key=f"one {n}", labels={"a": "1", "c": "3"}) for n in range(3)]
    elsewhere = await stored(memories, agent_id=other_agent, user_id="bob", labels={"a": "1"})
    await stored(memories, agent_id=agent_id, key="none")
    await stored(memories, agent_id=agent_id, key="other", labels={"a": "2"})
    assert await listed(memories, labels={"a": "1"}) == [elsewhere, *one[::-1], *both[::-1]]
    assert await listed(memories, labels={"a": "1", "b": "2"}) == both[::-1]
    assert await listed(memories, labels={"a": "1"}, agent_id=agent_id) == [*one[::-1], *both[::-1]]
    assert await listed(memories, labels={"a": "1"}, agent_id=other_agent, user_id="bob") == [elsewhere]
    assert await listed(memories, labels={"a": "1"}, user_id="bob", type=memory_pb2.MEMORY_TYPE_SKILL) == []
    assert await listed(memories, labels={"a": ""}) == []
    assert await listed(strangers, labels={"a": "1"}) == []


async def test_labels_follow_their_memory(memories: Stub) -> None:
    memory_id = await stored(memories, labels={"a": "1"})
    request = pb.UpdateMemoryRequest(
        memory=memory_pb2.Memory(memory_id=memory_id, labels={"b": "2"}), update_mask=FieldMask(paths=["labels"])
    )
    await memories.UpdateMemory(request)
    assert await listed(memories, labels={"a": "1"}) == []
    assert await listed(memories, labels={"b": "2"}) == [memory_id]
    await memories.RollbackMemory(pb.RollbackMemoryRequest(memory_id=memory_id, revision=1))
    assert await listed(memories, labels={"a": "1"}) == [memory_id]


async def test_list_by_session(memories: Stub) -> None:
    session_id, agent_id = str(uuid4()), str(uuid4())
    source = memory_pb2.MemorySource(session_id=session_id)
    drawn = [await stored(memories, agent_id=agent_id, key=str(number), source=source) for number in range(3)]
    await stored(memories, agent_id=agent_id, source=memory_pb2.MemorySource(session_id=str(uuid4())))
    assert await listed(memories, session_id=session_id) == drawn[::-1]
    assert await listed(memories, session_id=session_id, agent_id=agent_id, user_id="ann") == drawn[::-1]
    assert await listed(memories, session_id=session_id, user_id="bob") == []


async def test_what_is_no_longer_so_is_listed_where_it_is_asked_for(memories: Stub) -> None:
    now = int(time.time())
    lasting = await stored(memories, key="lasting")
    ending = await stored(memories, key="ending", valid_until=Timestamp(seconds=now + 1_000))
    over = await stored(
        memories, key="over", valid_from=Timestamp(seconds=now - 10), valid_until=Timestamp(seconds=now - 5)
    )
    assert await listed(memories) == [ending, lasting]
    assert await listed(memories, include_ended=True) == [over, ending, lasting]


async def test_page_token_is_bound_to_the_later_filters_too(memories: Stub) -> None:
    for number in range(2):
        await stored(memories, key=str(number), labels={"a": "1"})
    page = await memories.ListMemories(pb.ListMemoriesRequest(page_size=1, labels={"a": "1"}))
    others: list[dict[str, Any]] = [
        {},
        {"labels": {"a": "2"}},
        {"labels": {"a": "1"}, "include_ended": True},
        {"labels": {"a": "1"}, "session_id": str(uuid4())},
    ]
    for filters in others:
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
            await memories.ListMemories(pb.ListMemoriesRequest(page_token=page.next_page_token, **filters))


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ({"labels": {str(number): "" for number in range(9)}}, "labels"),
        ({"labels": {"x" * 64: ""}}, f"labels (key {'x' * 63!r})"),
        ({"labels": {"a": "x" * 64}}, "labels['a']"),
        ({"session_id": "nonsense"}, "session_id"),
    ],
)
async def test_filters_that_break_a_limit_are_refused(memories: Stub, filters: dict[str, Any], field: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await memories.ListMemories(pb.ListMemoriesRequest(**filters))
    assert set(refusal.violations) == {field}


async def test_a_page_by_label_reads_no_more_than_it_holds(
    memories: Stub, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    agent_id = str(uuid4())
    for part in range(4):
        await memories.StoreMemories(
            batch(
                *[
                    placed(towards(0), agent_id=agent_id, key=f"{part} {number}", labels={"common": ""})
                    for number in range(100)
                ]
            )
        )
    rare = await stored(memories, agent_id=agent_id, key="rare", labels={"common": "", "rare": ""})
    connection = await connected(postgres.dsn("memory"))
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL enable_seqscan = off")
            rows = await connection.fetch(
                "SELECT (memory).memory_id FROM memory.list_memories("
                '$1, NULL, NULL, NULL, NULL, \'{"common": "", "rare": ""}\', false, NULL, NULL, 10, 1000000)',
                tenant_id,
            )
            # Counted within the transaction, so no other test's reads are in it.
            read = await connection.fetchval("SELECT pg_stat_get_xact_tuples_fetched('memory.memories'::regclass)")
    finally:
        await connection.close()
    assert [str(row["memory_id"]) for row in rows] == [rare]
    assert read <= 2
