"""ExportMemories and ImportMemories: everything out, and in again elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_memory.stage import MODEL, Stub, batch, memory, placed, scattered, search, towards

INVALID = grpc.StatusCode.INVALID_ARGUMENT
LARGE = "openai/text-embedding-3-small"


async def exported(memories: Stub, **wanted: Any) -> list[pb.NewMemory]:
    return [part.memory async for part in memories.ExportMemories(pb.ExportMemoriesRequest(**wanted))]


async def imported(memories: Stub, new: Iterable[pb.NewMemory]) -> tuple[int, int, int]:
    """Imports; says how many were new, changed and there already."""

    async def requests() -> AsyncIterator[pb.ImportMemoriesRequest]:
        for one in new:
            yield pb.ImportMemoriesRequest(memory=one)

    answer = await memories.ImportMemories(requests())
    return answer.created_count, answer.updated_count, answer.unchanged_count


async def stored(memories: Stub, *new: pb.NewMemory) -> list[memory_pb2.Memory]:
    return [result.memory for result in (await memories.StoreMemories(batch(*new))).results]


async def fill(memories: Stub, agent_id: str) -> None:
    """Memories of all sorts: many, changed, ended, of another model, without a vector."""
    for part in range(3):
        await stored(
            memories,
            *[placed(scattered(part * 100 + n), agent_id=agent_id, key=f"{part} {n}") for n in range(100)],
        )
    await stored(memories, placed(towards(0), agent_id=agent_id, key="0 0", content="Changed."))
    await stored(
        memories,
        placed(
            towards(0),
            agent_id=agent_id,
            key="ended",
            valid_from=Timestamp(seconds=1_000),
            valid_until=Timestamp(seconds=2_000, nanos=3_000),
            occur_time=Timestamp(seconds=500),
            labels={"a": "b"},
            source=memory_pb2.MemorySource(session_id=str(uuid4()), message_sequences=[1], quote="so"),
        ),
        pb.NewMemory(
            memory=memory(agent_id=agent_id, key="large"),
            embedding=memory_pb2.Embedding(model=LARGE, values=[1.0] + [0.0] * 1535),
        ),
        pb.NewMemory(memory=memory(agent_id=agent_id, key="silent")),
        placed(towards(0), agent_id=agent_id, user_id="bob", key="bobs"),
    )


def told(memories: Iterable[memory_pb2.Memory]) -> list[memory_pb2.Memory]:
    """What an import keeps of memories."""
    kept = []
    for one in memories:
        copied = memory_pb2.Memory()
        copied.CopyFrom(one)
        for name in ("update_time", "revision", "etag"):
            copied.ClearField(name)
        kept.append(copied)
    return kept


async def test_what_goes_out_comes_in_again_elsewhere(memories: Stub, strangers: Stub) -> None:
    agent_id = str(uuid4())
    await fill(memories, agent_id)
    out = await exported(memories, include_vectors=True)
    assert len(out) == 304
    assert await imported(strangers, out) == (304, 0, 0)
    again = await exported(strangers, include_vectors=True)
    assert told(one.memory for one in again) == told(one.memory for one in out)
    assert [one.embedding for one in again] == [one.embedding for one in out]
    assert {one.memory.key: one.embedding.model for one in out if one.embedding.model != MODEL} == {
        "large": LARGE,
        "silent": "",
    }
    found = await strangers.SearchMemories(search(agent_id, scattered(7), limit=1))
    assert [hit.memory.key for hit in found.hits] == ["0 7"]


async def test_importing_again_changes_nothing(memories: Stub, strangers: Stub) -> None:
    await fill(memories, str(uuid4()))
    for include_vectors in (True, False):
        out = await exported(memories, include_vectors=include_vectors)
        assert await imported(memories, out) == (0, 0, 304)
        assert [one.memory for one in await exported(memories)] == [one.memory for one in out]
    # The newest comes first, whatever was there.
    out = await exported(memories, include_vectors=True)
    assert await imported(strangers, out[:150]) == (150, 0, 0)
    assert await imported(strangers, out) == (154, 0, 150)


async def test_what_took_its_place_is_kept(
    memories: Stub, strangers: Stub, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    old, new = await stored(memories, placed(towards(0), key="old"), placed(towards(0), key="new"))
    async with await postgres.connect("memory") as app:
        await app.fetch_value(
            "SELECT memory.end_memory($1, $2, now(), $3, 'consolidated', '', '')",
            tenant_id,
            UUID(old.memory_id),
            UUID(new.memory_id),
        )
    out = await exported(memories)
    assert {one.memory.key: one.memory.superseded_by for one in out} == {"old": new.memory_id, "new": ""}
    assert await imported(strangers, out) == (2, 0, 0)
    assert told(one.memory for one in await exported(strangers)) == [
        memory_pb2.Memory(**{**_fields(one), "embedding_model": ""}) for one in told(one.memory for one in out)
    ]


def _fields(message: memory_pb2.Memory) -> dict[str, Any]:
    return {field.name: value for field, value in message.ListFields()}


async def test_export_takes_what_matches_every_filter(memories: Stub, strangers: Stub) -> None:
    agent_id = str(uuid4())
    await stored(memories, placed(towards(0), agent_id=agent_id), placed(towards(0), agent_id=agent_id, user_id="bob"))
    await stored(memories, placed(towards(0)))
    assert len(await exported(memories)) == 3
    assert len(await exported(memories, agent_id=agent_id)) == 2
    assert len(await exported(memories, user_id="ann")) == 2
    [one] = await exported(memories, agent_id=agent_id, user_id="bob")
    assert not one.HasField("embedding")
    assert await exported(memories, user_id="eve") == []
    assert await exported(strangers) == []


async def test_export_checks_its_fields(memories: Stub) -> None:
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await exported(memories, agent_id="nonsense", user_id="x" * 201)
    assert set(refusal.violations) == {"agent_id", "user_id"}


async def test_large_memories_are_exported_whole(memories: Stub, strangers: Stub) -> None:
    new = [placed(scattered(n), key=str(n), content=f"{n}" + "é" * 32_000) for n in range(80)]
    for begin in range(0, 80, 16):
        await stored(memories, *new[begin : begin + 16])
    out = await exported(memories, include_vectors=True)
    assert [one.memory.key for one in out] == [str(n) for n in range(79, -1, -1)]
    assert await imported(strangers, out) == (80, 0, 0)


async def test_of_what_comes_twice_the_later_one_holds(memories: Stub) -> None:
    agent_id, memory_id = str(uuid4()), str(uuid7())
    new = [
        placed(towards(0), agent_id=agent_id, memory_id=memory_id, key="k", content=content)
        for content in ["one", "two"]
    ]
    assert await imported(memories, new) == (1, 1, 0)
    [kept] = await exported(memories)
    assert (kept.memory.memory_id, kept.memory.content, kept.memory.revision) == (memory_id, "two", 2)


async def test_an_empty_stream_imports_nothing(memories: Stub) -> None:
    assert await imported(memories, []) == (0, 0, 0)


@pytest.mark.parametrize(
    ("unfit", "field"),
    [
        (placed(towards(0), content=""), "memories[150].memory.content"),
        (placed(towards(0), create_time=Timestamp(seconds=10**15)), "memories[150].memory.create_time"),
        (placed(towards(0), superseded_by="nonsense"), "memories[150].memory.superseded_by"),
        (placed(towards(0), user_id="x" * 201), "memories[150].memory.user_id"),
        (
            placed(towards(0), valid_until=Timestamp(seconds=1_000)),
            "memories[150].memory.valid_until",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_malformed_ends_the_import_after_whole_batches(
    memories: Stub, unfit: pb.NewMemory, field: str
) -> None:
    new = [placed(scattered(n), key=str(n)) for n in range(150)]
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await imported(memories, [*new, unfit])
    assert set(refusal.violations) == {field}
    assert refusal.metadata["imported_count"] == "100"
    assert len(await exported(memories)) == 100


async def test_import_that_can_not_be_stored_says_how_far_it_came(memories: Stub) -> None:
    taken = (await stored(memories, placed(towards(0))))[0].memory_id
    new = [placed(scattered(n), key=str(n)) for n in range(200)]
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "MEMORY_ID_TAKEN") as refusal:
        await imported(memories, [*new, placed(towards(0), memory_id=taken, key="other")])
    assert refusal.metadata == {"imported_count": "200"}
    async with refused(INVALID, "VECTOR_INVALID") as refusal:
        await imported(memories, [*new, placed([1.0], key="other")])
    assert set(refusal.violations) == {"memories[200].embedding.values"}
    unknown = pb.NewMemory(memory=memory(), embedding=memory_pb2.Embedding(model="acme/none", values=[1.0]))
    async with refused(grpc.StatusCode.NOT_FOUND, "EMBEDDING_MODEL_NOT_FOUND") as refusal:
        await imported(memories, [unknown])
    assert refusal.metadata == {"embedding_model": "acme/none", "imported_count": "0"}


async def test_a_stream_that_is_cut_leaves_whole_batches(memories: Stub) -> None:
    sent, never = asyncio.Event(), asyncio.Event()

    async def requests() -> AsyncIterator[pb.ImportMemoriesRequest]:
        for number in range(250):
            yield pb.ImportMemoriesRequest(memory=placed(scattered(number), key=str(number)))
        sent.set()
        await never.wait()

    call = memories.ImportMemories(requests())
    await sent.wait()
    async with asyncio.timeout(60):
        while True:
            if len(await exported(memories)) == 200:
                break
            await asyncio.sleep(0.01)
    call.cancel()
    assert len(await exported(memories)) == 200
