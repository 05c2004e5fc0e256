"""Every limit that the contract states is held, and named when it is broken."""

from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf import struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_testing.errors import refused

from tests.minion_memory.stage import MODEL, Stub, batch, memory, placed, search, towards

INVALID = grpc.StatusCode.INVALID_ARGUMENT
AGENT = str(uuid4())
_VECTOR = memory_pb2.Embedding(model=MODEL, values=towards(0))


def struct(**fields: Any) -> struct_pb2.Struct:
    made = struct_pb2.Struct()
    made.update(fields)
    return made


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"agent_id": ""}, "agent_id"),
        ({"agent_id": "nobody"}, "agent_id"),
        ({"memory_id": "1"}, "memory_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "u" * 201}, "user_id"),
        ({"user_id": "u\x00"}, "user_id"),
        ({"key": "k" * 201}, "key"),
        ({"type": memory_pb2.MEMORY_TYPE_UNSPECIFIED}, "type"),
        ({"type": 99}, "type"),
        ({"content": ""}, "content"),
        ({"content": "c" * 32_769}, "content"),
        ({"content": " \n"}, "content"),
        ({"speaker": "s" * 201}, "speaker"),
        ({"importance": 1.01}, "importance"),
        ({"importance": float("nan")}, "importance"),
        ({"confidence": -0.01}, "confidence"),
        ({"trust": 99}, "trust"),
        ({"labels": {f"k{number}": "v" for number in range(33)}}, "labels"),
        ({"labels": {"": "v"}}, "labels (key '')"),
        ({"labels": {"k": "v" * 64}}, "labels['k']"),
        ({"metadata": struct(text="x" * 16_384)}, "metadata"),
        ({"metadata": struct(number=float("inf"))}, "metadata.number"),
        ({"source": memory_pb2.MemorySource(session_id="x")}, "source.session_id"),
        ({"source": memory_pb2.MemorySource(message_sequences=range(33))}, "source.message_sequences"),
        ({"source": memory_pb2.MemorySource(quote="q" * 2_001)}, "source.quote"),
    ],
)
async def test_field_of_a_memory_is_checked(memories: Stub, fields: dict[str, Any], field: str) -> None:
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await memories.StoreMemories(batch(placed(towards(0)), placed(towards(0), **fields)))
    assert list(refusal.violations) == [f"memories[1].memory.{field}"]


async def test_largest_fields_are_taken(memories: Stub) -> None:
    stored = await memories.StoreMemories(
        batch(
            placed(
                towards(0),
                user_id="ü" * 200,
                key="k" * 200,
                content="é" * 32_768,
                speaker="s" * 200,
                importance=1,
                confidence=0,
                labels={f"{number}".zfill(63): "v" * 63 for number in range(32)},
                metadata=struct(text="x" * 16_300),
                source=memory_pb2.MemorySource(message_sequences=range(32), quote="q" * 2_000),
            )
        )
    )
    assert stored.results[0].outcome == memory_pb2.STORE_OUTCOME_CREATED


@pytest.mark.parametrize("count", [0, 101])
async def test_size_of_a_batch_is_checked(memories: Stub, count: int) -> None:
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await memories.StoreMemories(batch(*[placed(towards(0), key=str(number)) for number in range(count)]))
    assert "memories" in refusal.violations


async def test_content_of_a_batch_is_bounded(memories: Stub) -> None:
    large = [placed(towards(0), content="é" * 32_768, key=str(number)) for number in range(17)]
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await memories.StoreMemories(batch(*large))
    assert list(refusal.violations) == ["memories"]


async def test_two_under_one_key_are_refused(memories: Stub) -> None:
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await memories.StoreMemories(
            batch(placed(towards(0), agent_id=AGENT), placed(towards(0), agent_id=AGENT, content="tea. "))
        )
    assert list(refusal.violations) == ["memories[1].memory.key"]


async def test_two_of_one_id_are_refused(memories: Stub) -> None:
    memory_id = str(uuid4())
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await memories.StoreMemories(
            batch(placed(towards(0), memory_id=memory_id), placed(towards(0), memory_id=memory_id))
        )
    assert list(refusal.violations) == ["memories[1].memory.memory_id"]


async def test_embedding_names_its_model(memories: Stub) -> None:
    new = pb.NewMemory(memory=memory(), embedding=memory_pb2.Embedding(values=towards(0)))
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await memories.StoreMemories(batch(new))
    assert list(refusal.violations) == ["memories[0].embedding.model"]


async def test_malformed_request_id_is_refused(memories: Stub) -> None:
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await memories.StoreMemories(batch(placed(towards(0)), request_id="again"))
    assert list(refusal.violations) == ["request_id"]
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await memories.DeleteMemory(pb.DeleteMemoryRequest(memory_id=AGENT, request_id="again"))
    assert list(refusal.violations) == ["request_id"]


@pytest.mark.parametrize("memory_id", ["", "x", "{01890a5d-ac96-774b-bcce-b302099a8057}"])
async def test_id_of_a_memory_is_checked(memories: Stub, memory_id: str) -> None:
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await memories.GetMemory(pb.GetMemoryRequest(memory_id=memory_id))
    assert list(refusal.violations) == ["memory_id"]
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await memories.DeleteMemory(pb.DeleteMemoryRequest(memory_id=memory_id))
    assert list(refusal.violations) == ["memory_id"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"agent_id": "x"}, "agent_id"),
        ({"user_id": "u" * 201}, "user_id"),
        ({"type": 99}, "type"),
        ({"page_size": -1}, "page_size"),
    ],
)
async def test_filter_of_a_list_is_checked(memories: Stub, fields: dict[str, Any], field: str) -> None:
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await memories.ListMemories(pb.ListMemoriesRequest(**fields))
    assert list(refusal.violations) == [field]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"agent_id": ""}, "agent_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "u" * 201}, "user_id"),
        ({"query": "q" * 8_193}, "query"),
        ({"vector": None}, "query"),
        ({"vector": memory_pb2.Embedding(values=towards(0))}, "vector.model"),
        ({"types": [memory_pb2.MEMORY_TYPE_FACT, memory_pb2.MEMORY_TYPE_UNSPECIFIED]}, "types[1]"),
        ({"min_score": 1.1}, "min_score"),
        ({"min_score": float("nan")}, "min_score"),
        ({"limit": -1}, "limit"),
        ({"limit": 101}, "limit"),
        ({"labels": {f"k{number}": "v" for number in range(9)}}, "labels"),
        ({"labels": {"": "v"}}, "labels (key '')"),
        ({"labels": {"k": "v" * 64}}, "labels['k']"),
        ({"metadata": struct(text="x" * 4_096)}, "metadata"),
        ({"metadata": struct(number=float("nan"))}, "metadata.number"),
        ({"session_id": "x"}, "session_id"),
        ({"trusts": [memory_pb2.MEMORY_TRUST_USER, 99]}, "trusts[1]"),
        ({"occurred_after": Timestamp(seconds=1 << 50)}, "occurred_after"),
        ({"occurred_before": Timestamp(seconds=1 << 50)}, "occurred_before"),
        ({"as_of": Timestamp(seconds=1 << 50)}, "as_of"),
    ],
)
async def test_field_of_a_search_is_checked(memories: Stub, fields: dict[str, Any], field: str) -> None:
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await memories.SearchMemories(
            pb.SearchMemoriesRequest(**{"agent_id": AGENT, "user_id": "ann", "vector": _VECTOR, **fields})
        )
    assert list(refusal.violations) == [field]


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ([1.0], "must have 384 numbers, has 1"),
        ([float("nan")] * 384, "must hold finite numbers alone"),
        ([0.0] * 384, "must not be all zeros: it would point nowhere"),
    ],
)
async def test_vector_of_a_search_is_checked(memories: Stub, values: list[float], fault: str) -> None:
    async with refused(INVALID, "VECTOR_INVALID") as refusal:
        await memories.SearchMemories(search(AGENT, values))
    assert refusal.violations == {"vector.values": fault}


async def test_model_of_a_search_is_checked(memories: Stub) -> None:
    vector = memory_pb2.Embedding(model="acme/none", values=towards(0))
    async with refused(grpc.StatusCode.NOT_FOUND, "EMBEDDING_MODEL_NOT_FOUND"):
        await memories.SearchMemories(pb.SearchMemoriesRequest(agent_id=AGENT, user_id="ann", vector=vector))


async def test_every_fault_is_reported_at_once(memories: Stub) -> None:
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await memories.StoreMemories(
            pb.StoreMemoriesRequest(memories=[pb.NewMemory(memory=memory_pb2.Memory())], request_id="x")
        )
    assert set(refusal.violations) == {
        "memories[0].memory.agent_id",
        "memories[0].memory.user_id",
        "memories[0].memory.type",
        "memories[0].memory.content",
        "request_id",
    }
