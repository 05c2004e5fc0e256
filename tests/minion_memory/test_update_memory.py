"""UpdateMemory and GetMemoryByKey."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf import struct_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_memory.stage import MODEL, Stub, batch, placed, search, towards

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
_LATE = Timestamp(seconds=4_000_000_000)
_METADATA = struct_pb2.Struct(fields={"a": struct_pb2.Value(number_value=1)})


async def stored(memories: Stub, **fields: Any) -> memory_pb2.Memory:
    return (await memories.StoreMemories(batch(placed(towards(0), **fields)))).results[0].memory


def update(memory_id: str, *, extra: dict[str, Any] | None = None, **fields: Any) -> pb.UpdateMemoryRequest:
    """A request that sets these fields."""
    return pb.UpdateMemoryRequest(
        memory=memory_pb2.Memory(memory_id=memory_id, **fields),
        update_mask=FieldMask(paths=list(fields)),
        **(extra or {}),
    )


async def updated(memories: Stub, request: pb.UpdateMemoryRequest) -> memory_pb2.Memory:
    return (await memories.UpdateMemory(request)).memory


@pytest.mark.parametrize(
    "change",
    [
        {"type": memory_pb2.MEMORY_TYPE_SKILL},
        {"content": "Other."},
        {"speaker": "Bob"},
        {"importance": 0.0},
        {"confidence": 0.1},
        {"labels": {"a": "b"}},
        {"metadata": _METADATA},
        {"source": memory_pb2.MemorySource(session_id=str(uuid4()), message_sequences=[1], quote="so")},
        {"valid_from": Timestamp(seconds=1_000)},
        {"valid_until": _LATE},
        {"occur_time": Timestamp(seconds=1_000)},
        {"content": "Two.", "speaker": "Eve", "importance": 1.0},
    ],
    ids="+".join,
)
async def test_what_the_mask_names_changes_and_nothing_else(memories: Stub, change: dict[str, Any]) -> None:
    before = await stored(memories, labels={"was": "so"}, speaker="Ann", trust=memory_pb2.MEMORY_TRUST_USER)
    after = await updated(memories, update(before.memory_id, **change))
    expected = memory_pb2.Memory()
    expected.CopyFrom(before)
    for name, value in change.items():
        expected.ClearField(name)  # type: ignore[arg-type]
        expected.MergeFrom(memory_pb2.Memory(**{name: value}))
    assert after.update_time.ToNanoseconds() > before.update_time.ToNanoseconds()
    assert (after.revision, after.etag) == (2, "2")
    expected.update_time.CopyFrom(after.update_time)
    expected.revision, expected.etag = after.revision, after.etag
    expected.embedding_model = "" if "content" in change else MODEL
    assert after == expected
    assert (await memories.GetMemory(pb.GetMemoryRequest(memory_id=before.memory_id))).memory == after


async def test_unset_values_are_those_of_a_memory_that_says_nothing_of_them(memories: Stub) -> None:
    before = await stored(memories, importance=0.9, confidence=0.9, valid_until=_LATE, labels={"a": "b"}, speaker="Ann")
    request = update(before.memory_id)
    request.update_mask.paths.extend(["importance", "confidence", "valid_until", "labels", "speaker"])
    after = await updated(memories, request)
    assert (after.importance, after.confidence, after.speaker, dict(after.labels)) == (0.5, 1.0, "", {})
    assert not after.HasField("valid_until")


async def test_a_new_vector_comes_with_a_new_content(memories: Stub) -> None:
    before = await stored(memories)
    extra = {"embedding": memory_pb2.Embedding(model=MODEL, values=towards(60))}
    after = await updated(memories, update(before.memory_id, content="Coffee.", extra=extra))
    assert after.embedding_model == MODEL
    found = await memories.SearchMemories(search(before.agent_id, towards(60)))
    assert [hit.memory.content for hit in found.hits] == ["Coffee."]
    assert found.hits[0].similarity == pytest.approx(1, abs=1e-6)


async def test_the_same_again_makes_no_revision(memories: Stub) -> None:
    before = await stored(memories, content="Tea.")
    assert await updated(memories, update(before.memory_id, content="Tea.", speaker="")) == before


async def test_another_type_moves_counts_and_vectors_along(
    memories: Stub, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    before = await stored(memories)
    await updated(memories, update(before.memory_id, type=memory_pb2.MEMORY_TYPE_SKILL))
    async with await postgres.connect("memory", "owner") as owner:
        counted = await owner.fetch_one(
            "SELECT fact_count, skill_count FROM memory.scope_counts WHERE tenant_id = $1", tenant_id
        )
    assert counted is not None
    assert tuple(counted.values()) == (0, 1)
    skills = search(before.agent_id, towards(0), types=[memory_pb2.MEMORY_TYPE_SKILL])
    assert len((await memories.SearchMemories(skills)).hits) == 1


async def test_stale_etag_is_refused_and_nothing_changes(memories: Stub) -> None:
    before = await stored(memories)
    second = await updated(memories, update(before.memory_id, speaker="Ann", extra={"etag": before.etag}))
    for etag in (before.etag, "nonsense", "9" * 30, "²"):
        async with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH") as refusal:
            await memories.UpdateMemory(update(before.memory_id, speaker="Bob", extra={"etag": etag}))
        assert refusal.metadata == {"memory_id": before.memory_id, "etag": "2"}
    assert (await memories.GetMemory(pb.GetMemoryRequest(memory_id=before.memory_id))).memory == second


async def test_replay_returns_the_first_result_and_changes_nothing(memories: Stub) -> None:
    before = await stored(memories)
    request = update(before.memory_id, content="Coffee.", extra={"request_id": str(uuid7())})
    first = await memories.UpdateMemory(request)
    await memories.UpdateMemory(update(before.memory_id, content="Water."))
    assert await memories.UpdateMemory(request) == first
    read = (await memories.GetMemory(pb.GetMemoryRequest(memory_id=before.memory_id))).memory
    assert (read.content, read.revision) == ("Water.", 3)


async def test_replay_of_an_update_of_a_memory_that_is_gone_is_not_found(memories: Stub) -> None:
    before = await stored(memories)
    request = update(before.memory_id, speaker="Ann", extra={"request_id": str(uuid7())})
    await memories.UpdateMemory(request)
    await memories.DeleteMemory(pb.DeleteMemoryRequest(memory_id=before.memory_id))
    async with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
        await memories.UpdateMemory(request)


async def test_replay_that_was_embedded_again_returns_the_first_result(memories: Stub) -> None:
    before, request_id = await stored(memories), str(uuid7())
    first, again = [
        await memories.UpdateMemory(
            update(
                before.memory_id,
                content="Coffee.",
                extra={
                    "request_id": request_id,
                    "embedding": memory_pb2.Embedding(model=MODEL, values=towards(degrees)),
                },
            )
        )
        for degrees in (0, 0.001)
    ]
    assert again == first


async def test_reused_request_id_is_refused(memories: Stub) -> None:
    before, request_id = await stored(memories), str(uuid7())
    await memories.UpdateMemory(update(before.memory_id, speaker="Ann", extra={"request_id": request_id}))
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await memories.UpdateMemory(update(before.memory_id, speaker="Bob", extra={"request_id": request_id}))
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await memories.UpdateMemory(update(before.memory_id, content="Bob.", extra={"request_id": request_id}))


async def test_absent_and_foreign_memories_are_not_found(memories: Stub, strangers: Stub) -> None:
    before = await stored(memories)
    async with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
        await memories.UpdateMemory(update(str(uuid7()), speaker="Ann"))
    changes: list[dict[str, Any]] = [{"speaker": "Ann"}, {"content": "Mine."}]
    for fields in changes:
        async with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
            await strangers.UpdateMemory(update(before.memory_id, **fields))
    assert (await memories.GetMemory(pb.GetMemoryRequest(memory_id=before.memory_id))).memory == before


async def test_it_may_not_end_before_it_begins(memories: Stub) -> None:
    before = await stored(memories, valid_from=Timestamp(seconds=1_000_000))
    for request in (
        update(before.memory_id, valid_until=Timestamp(seconds=999_999)),
        update(before.memory_id, valid_from=Timestamp(seconds=2_000), valid_until=Timestamp(seconds=1_000)),
    ):
        async with refused(INVALID, "INVALID_FIELDS") as refusal:
            await memories.UpdateMemory(request)
        assert refusal.violations == {"memory.valid_until": "must not be before valid_from"}
    assert (await memories.GetMemory(pb.GetMemoryRequest(memory_id=before.memory_id))).memory == before


@pytest.mark.parametrize(
    ("request_of", "field"),
    [
        (lambda at: pb.UpdateMemoryRequest(memory=memory_pb2.Memory(memory_id=at)), "update_mask"),
        (lambda at: update(at, trust=memory_pb2.MEMORY_TRUST_USER), "update_mask"),
        (lambda at: update(at, key="other"), "update_mask"),
        (lambda at: update(at, user_id="other"), "update_mask"),
        (lambda at: update(at, superseded_by=at), "update_mask"),
        (lambda at: update("", speaker="Ann"), "memory.memory_id"),
        (lambda at: update("nonsense", speaker="Ann"), "memory.memory_id"),
        (lambda at: update(at, content=""), "memory.content"),
        (lambda at: update(at, content="x" * 32_769), "memory.content"),
        (lambda at: update(at, type=0), "memory.type"),
        (lambda at: update(at, type=99), "memory.type"),
        (lambda at: update(at, speaker="x" * 201), "memory.speaker"),
        (lambda at: update(at, importance=1.1), "memory.importance"),
        (lambda at: update(at, confidence=float("nan")), "memory.confidence"),
        (lambda at: update(at, labels={str(n): "" for n in range(33)}), "memory.labels"),
        (lambda at: update(at, labels={"a": "x" * 64}), "memory.labels['a']"),
        (lambda at: update(at, source=memory_pb2.MemorySource(quote="x" * 2_001)), "memory.source.quote"),
        (lambda at: update(at, valid_from=Timestamp(seconds=10**15)), "memory.valid_from"),
        (lambda at: update(at, speaker="Ann", extra={"reason": "x" * 2_001}), "reason"),
        (lambda at: update(at, speaker="Ann", extra={"request_id": "nonsense"}), "request_id"),
        (lambda at: update(at, speaker="A", extra={"embedding": memory_pb2.Embedding(model=MODEL)}), "embedding"),
    ],
)
async def test_what_breaks_a_limit_is_refused(
    memories: Stub, request_of: Callable[[str], pb.UpdateMemoryRequest], field: str
) -> None:
    before = await stored(memories)
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await memories.UpdateMemory(request_of(before.memory_id))
    assert field in refusal.violations
    assert (await memories.GetMemory(pb.GetMemoryRequest(memory_id=before.memory_id))).memory == before


@pytest.mark.parametrize("name", ["valid_from", "occur_time"])
async def test_a_time_that_every_memory_has_is_not_taken_away(memories: Stub, name: str) -> None:
    before = await stored(memories)
    request = update(before.memory_id)
    request.update_mask.paths.append(name)
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await memories.UpdateMemory(request)
    assert refusal.violations == {f"memory.{name}": "is required where the mask names it"}


async def test_unfit_vectors_and_unknown_models_are_refused(memories: Stub) -> None:
    before = await stored(memories)
    extra = {"embedding": memory_pb2.Embedding(model=MODEL, values=[1.0] * 383)}
    async with refused(INVALID, "VECTOR_INVALID") as refusal:
        await memories.UpdateMemory(update(before.memory_id, content="Coffee.", extra=extra))
    assert refusal.violations == {"embedding.values": "must have 384 numbers, has 383"}
    extra = {"embedding": memory_pb2.Embedding(model="acme/none", values=[1.0])}
    async with refused(NOT_FOUND, "EMBEDDING_MODEL_NOT_FOUND"):
        await memories.UpdateMemory(update(before.memory_id, content="Coffee.", extra=extra))
    assert (await memories.GetMemory(pb.GetMemoryRequest(memory_id=before.memory_id))).memory == before


async def test_a_memory_is_found_by_its_key(memories: Stub, strangers: Stub) -> None:
    wanted = await stored(memories, key="drink")
    await stored(memories, agent_id=wanted.agent_id, user_id="bob", key="drink")

    def named(**fields: str) -> pb.GetMemoryByKeyRequest:
        return pb.GetMemoryByKeyRequest(**{"agent_id": wanted.agent_id, "user_id": "ann", "key": "drink", **fields})

    assert (await memories.GetMemoryByKey(named())).memory == wanted
    absent: list[Callable[[], Awaitable[object]]] = [
        lambda: memories.GetMemoryByKey(named(key="food")),
        lambda: memories.GetMemoryByKey(named(user_id="eve")),
        lambda: memories.GetMemoryByKey(named(agent_id=str(uuid4()))),
        lambda: strangers.GetMemoryByKey(named()),
    ]
    for ask in absent:
        async with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
            await ask()
    for fields in ({"key": ""}, {"key": "x" * 201}, {"user_id": ""}, {"user_id": "x" * 201}, {"agent_id": "nonsense"}):
        async with refused(INVALID, "INVALID_FIELDS") as refusal:
            await memories.GetMemoryByKey(named(**fields))
        assert set(refusal.violations) == set(fields)
