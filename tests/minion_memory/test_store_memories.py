"""StoreMemories: upserts by key, all or none, repeatable."""

import math
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest
from google.protobuf import json_format, struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_memory.stage import MODEL, Stub, batch, memory, placed, towards

CREATED, UPDATED, UNCHANGED = (
    memory_pb2.STORE_OUTCOME_CREATED,
    memory_pb2.STORE_OUTCOME_UPDATED,
    memory_pb2.STORE_OUTCOME_UNCHANGED,
)


def full(agent_id: str) -> memory_pb2.Memory:
    """A memory with every field that a caller may set."""
    metadata = struct_pb2.Struct()
    metadata.update({"seen": 3, "where": {"city": "Oslo"}, "sure": True, "tags": ["a", None]})
    return memory(
        agent_id=agent_id,
        key="drink",
        type=memory_pb2.MEMORY_TYPE_PREFERENCE,
        content="Prefers tea to coffee, since 2019 — 紅茶.",
        speaker="Ann",
        importance=0.9,
        confidence=0.25,
        trust=memory_pb2.MEMORY_TRUST_USER,
        labels={"topic": "drinks", "empty": ""},
        metadata=metadata,
        source=memory_pb2.MemorySource(session_id=str(uuid4()), message_sequences=[3, 4], quote="I like tea"),
        valid_from=Timestamp(seconds=1_500_000_000, nanos=1_000),
        valid_until=Timestamp(seconds=4_000_000_000),
        occur_time=Timestamp(seconds=1_600_000_000),
    )


async def scope_count(database: ClonedDatabase, tenant_id: UUID, agent_id: str) -> int:
    connection = await asyncpg.connect(database.admin_dsn)
    try:
        return int(
            await connection.fetchval(
                "SELECT coalesce(sum(memory_count), 0) FROM memory.scope_counts WHERE tenant_id = $1 AND agent_id = $2",
                tenant_id,
                UUID(agent_id),
            )
        )
    finally:
        await connection.close()


async def test_stored_memory_reads_back_whole(memories: Stub) -> None:
    wanted = full(str(uuid4()))
    new = pb.NewMemory(memory=wanted, embedding=memory_pb2.Embedding(model=MODEL, values=towards(0)))
    stored = (await memories.StoreMemories(batch(new))).results[0]
    assert stored.outcome == CREATED
    read = (await memories.GetMemory(pb.GetMemoryRequest(memory_id=stored.memory.memory_id))).memory
    assert read == stored.memory
    assert UUID(read.memory_id).version == 7
    assert read.embedding_model == MODEL
    assert read.create_time == read.update_time
    assert (read.revision, read.etag, read.superseded_by, read.access_count) == (1, "1", "", 0)
    for given in ("memory_id", "embedding_model", "create_time", "update_time", "revision", "etag"):
        read.ClearField(given)
    assert json_format.MessageToDict(read) == json_format.MessageToDict(wanted)


async def test_defaults_are_filled_in(memories: Stub) -> None:
    stored = (await memories.StoreMemories(batch(placed(towards(0))))).results[0].memory
    assert (stored.importance, stored.confidence) == (0.5, 1.0)
    assert stored.trust == memory_pb2.MEMORY_TRUST_ASSERTED
    assert len(stored.key) == 32


async def test_the_same_words_are_one_memory(memories: Stub) -> None:
    agent_id = str(uuid4())
    first = (await memories.StoreMemories(batch(placed(towards(0), agent_id=agent_id, content="Likes tea")))).results[0]
    again = (await memories.StoreMemories(batch(placed(towards(0), agent_id=agent_id, content="likes  TEA")))).results[
        0
    ]
    assert again.outcome == UPDATED
    assert again.memory.memory_id == first.memory.memory_id
    assert again.memory.content == "likes  TEA"


async def test_batch_reports_each_outcome_in_order(memories: Stub, postgres: ClonedDatabase, tenant_id: UUID) -> None:
    agent_id = str(uuid4())
    await memories.StoreMemories(
        batch(
            placed(towards(0), agent_id=agent_id, key="same"), placed(towards(10), agent_id=agent_id, key="other words")
        )
    )
    response = await memories.StoreMemories(
        batch(
            placed(towards(20), agent_id=agent_id, key="new"),
            placed(towards(0), agent_id=agent_id, key="same"),
            placed(towards(10), agent_id=agent_id, key="other words", content="Coffee."),
        )
    )
    assert [result.outcome for result in response.results] == [CREATED, UNCHANGED, UPDATED]
    assert [result.memory.key for result in response.results] == ["new", "same", "other words"]
    assert await scope_count(postgres, tenant_id, agent_id) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"type": memory_pb2.MEMORY_TYPE_SKILL},
        {"content": "Other."},
        {"speaker": "Bob"},
        {"importance": 0.6},
        {"confidence": 0.1},
        {"trust": memory_pb2.MEMORY_TRUST_TOOL},
        {"labels": {"a": "b"}},
        {"metadata": struct_pb2.Struct(fields={"a": struct_pb2.Value(number_value=1)})},
        {"source": memory_pb2.MemorySource(quote="so")},
        {"valid_from": Timestamp(seconds=1_000)},
        {"valid_until": Timestamp(seconds=4_000_000_000)},
        {"occur_time": Timestamp(seconds=1_000)},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_any_changed_field_is_an_update(memories: Stub, change: dict[str, Any]) -> None:
    agent_id = str(uuid4())
    first = (await memories.StoreMemories(batch(placed(towards(0), agent_id=agent_id, key="k")))).results[0].memory
    changed = (await memories.StoreMemories(batch(placed(towards(0), agent_id=agent_id, key="k", **change)))).results[0]
    assert changed.outcome == UPDATED
    assert changed.memory.memory_id == first.memory_id
    assert changed.memory.create_time == first.create_time
    assert changed.memory.revision == 2
    assert changed.memory.update_time.ToNanoseconds() > first.update_time.ToNanoseconds()
    read = (await memories.GetMemory(pb.GetMemoryRequest(memory_id=first.memory_id))).memory
    assert read == changed.memory


async def test_a_changed_vector_is_an_update_and_is_found(memories: Stub) -> None:
    agent_id = str(uuid4())
    await memories.StoreMemories(batch(placed(towards(0), agent_id=agent_id, key="k")))
    moved = (await memories.StoreMemories(batch(placed(towards(60), agent_id=agent_id, key="k")))).results[0]
    assert moved.outcome == UPDATED
    found = await memories.SearchMemories(
        pb.SearchMemoriesRequest(
            agent_id=agent_id, user_id="ann", vector=memory_pb2.Embedding(model=MODEL, values=towards(60))
        )
    )
    assert [hit.similarity for hit in found.hits] == pytest.approx([1.0], abs=1e-6)


async def test_a_vector_that_is_the_same_is_not_written_again(
    memories: Stub, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    agent_id = str(uuid4())

    async def written() -> str:
        async with await postgres.connect("memory", "owner") as owner:
            return str(
                await owner.fetch_value("SELECT xmin FROM memory.memory_vectors WHERE tenant_id = $1", tenant_id)
            )

    await memories.StoreMemories(batch(placed(towards(0), agent_id=agent_id, key="k")))
    before = await written()
    for change in ({"importance": 0.9}, {"content": "Other words of the same place."}):
        again = await memories.StoreMemories(batch(placed(towards(0), agent_id=agent_id, key="k", **change)))
        assert again.results[0].outcome == UPDATED
        assert again.results[0].memory.embedding_model == MODEL
        assert await written() == before


async def test_a_vector_of_another_model_replaces_the_first(memories: Stub) -> None:
    agent_id = str(uuid4())
    large = memory_pb2.Embedding(model="openai/text-embedding-3-small", values=[1.0] + [0.0] * 1535)
    await memories.StoreMemories(batch(placed(towards(0), agent_id=agent_id, key="k")))
    moved = await memories.StoreMemories(
        batch(pb.NewMemory(memory=memory(agent_id=agent_id, key="k"), embedding=large))
    )
    assert moved.results[0].outcome == UPDATED
    assert moved.results[0].memory.embedding_model == "openai/text-embedding-3-small"
    by_large = await memories.SearchMemories(pb.SearchMemoriesRequest(agent_id=agent_id, user_id="ann", vector=large))
    assert len(by_large.hits) == 1
    by_small = await memories.SearchMemories(
        pb.SearchMemoriesRequest(
            agent_id=agent_id, user_id="ann", vector=memory_pb2.Embedding(model=MODEL, values=towards(0))
        )
    )
    assert len(by_small.hits) == 0
    assert by_small.scope_count == 1


async def test_replay_returns_the_first_result_and_stores_nothing(
    memories: Stub, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    agent_id, request_id = str(uuid4()), uuid7()
    request = batch(placed(towards(0), agent_id=agent_id, key="k"), request_id=request_id)
    first = await memories.StoreMemories(request)
    await memories.StoreMemories(batch(placed(towards(0), agent_id=agent_id, key="k", content="Later.")))
    again = await memories.StoreMemories(request)
    assert again == first
    read = await memories.GetMemory(pb.GetMemoryRequest(memory_id=first.results[0].memory.memory_id))
    assert read.memory.content == "Later."
    assert await scope_count(postgres, tenant_id, agent_id) == 1


async def test_replay_that_was_embedded_again_returns_the_first_result(memories: Stub) -> None:
    agent_id, request_id = str(uuid4()), uuid7()
    # Providers round differently from call to call; what is asked for is the same.
    first, again = [
        await memories.StoreMemories(batch(placed(towards(degrees), agent_id=agent_id), request_id=request_id))
        for degrees in (0, 0.001)
    ]
    assert again == first


async def test_reused_request_id_is_refused(memories: Stub) -> None:
    request_id = uuid7()
    await memories.StoreMemories(batch(placed(towards(0)), request_id=request_id))
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await memories.StoreMemories(batch(placed(towards(0)), request_id=request_id))


async def test_proposed_id_is_taken_over(memories: Stub) -> None:
    memory_id = str(uuid7())
    stored = (await memories.StoreMemories(batch(placed(towards(0), memory_id=memory_id)))).results[0]
    assert stored.memory.memory_id == memory_id


async def test_proposed_id_of_another_memory_is_refused_and_nothing_stored(
    memories: Stub, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    taken, agent_id = str(uuid7()), str(uuid4())
    await memories.StoreMemories(batch(placed(towards(0), memory_id=taken)))
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "MEMORY_ID_TAKEN"):
        await memories.StoreMemories(
            batch(
                placed(towards(0), agent_id=agent_id, key="one"),
                placed(towards(0), agent_id=agent_id, key="two", memory_id=taken),
            )
        )
    assert await scope_count(postgres, tenant_id, agent_id) == 0
    listed = await memories.ListMemories(pb.ListMemoriesRequest(agent_id=agent_id))
    assert len(listed.memories) == 0


async def test_two_tenants_may_hold_the_same_id(memories: Stub, strangers: Stub) -> None:
    memory_id = str(uuid7())
    for stub in (memories, strangers):
        stored = (await stub.StoreMemories(batch(placed(towards(0), memory_id=memory_id)))).results[0]
        assert stored.outcome == CREATED


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ([1.0] * 383, "must have 384 numbers, has 383"),
        ([1.0] * 383 + [math.nan], "must hold finite numbers alone"),
        ([1.0] * 383 + [math.inf], "must hold finite numbers alone"),
        ([0.0] * 384, "must not be all zeros: it would point nowhere"),
    ],
)
async def test_unfit_vector_is_refused_and_nothing_stored(memories: Stub, values: list[float], fault: str) -> None:
    agent_id = str(uuid4())
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "VECTOR_INVALID") as refusal:
        await memories.StoreMemories(
            batch(placed(towards(0), agent_id=agent_id), placed(values, agent_id=agent_id, key="second"))
        )
    assert refusal.violations == {"memories[1].embedding.values": fault}
    listed = await memories.ListMemories(pb.ListMemoriesRequest(agent_id=agent_id))
    assert len(listed.memories) == 0


async def test_unknown_model_is_refused(memories: Stub) -> None:
    new = pb.NewMemory(memory=memory(), embedding=memory_pb2.Embedding(model="acme/none", values=[1.0]))
    async with refused(grpc.StatusCode.NOT_FOUND, "EMBEDDING_MODEL_NOT_FOUND") as refusal:
        await memories.StoreMemories(batch(new))
    assert refusal.metadata == {"embedding_model": "acme/none"}
    assert refusal.domain == "minion.memory"


@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1e6, 1e30])
async def test_extreme_vectors_score_by_their_direction(memories: Stub, scale: float) -> None:
    agent_id = str(uuid4())
    await memories.StoreMemories(batch(placed([scale * value for value in towards(0)], agent_id=agent_id)))
    found = await memories.SearchMemories(
        pb.SearchMemoriesRequest(
            agent_id=agent_id,
            user_id="ann",
            vector=memory_pb2.Embedding(model=MODEL, values=[scale * value for value in towards(60)]),
        )
    )
    assert found.hits[0].similarity == pytest.approx(0.5, abs=1e-6)
