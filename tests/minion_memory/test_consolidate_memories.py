"""ConsolidateMemories: what it does, what it only shows, and what it leaves alone."""

import time
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from minion.memory.v1 import consolidation_pb2, memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_memory.consolidation import domain
from minion_memory.consolidation.domain import telling
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import serve
from uuid_utils.compat import uuid7

from tests.minion_memory.conftest import NOBODY
from tests.minion_memory.stage import Stub, batch, calling, placed, scattered, towards

MERGE = consolidation_pb2.CONSOLIDATION_KIND_MERGE
SUPERSEDE = consolidation_pb2.CONSOLIDATION_KIND_SUPERSEDE
PRUNE = consolidation_pb2.CONSOLIDATION_KIND_PRUNE
USER = memory_pb2.MEMORY_TRUST_USER
TOOL = memory_pb2.MEMORY_TRUST_TOOL


def day(number: int) -> Timestamp:
    return Timestamp(seconds=1_700_000_000 + number * 86_400)


def source(sequence: int) -> memory_pb2.MemorySource:
    return memory_pb2.MemorySource(session_id=str(uuid4()), message_sequences=[sequence], quote=f"said in {sequence}")


async def store(memories: Stub, agent_id: str, *fields: dict[str, Any]) -> list[memory_pb2.Memory]:
    """Stores memories of one agent and user, each at a vector of its own unless it says so."""
    new = [
        placed(each.pop("at", None) or scattered(index), agent_id=agent_id, **each) for index, each in enumerate(fields)
    ]
    return [result.memory for result in (await memories.StoreMemories(batch(*new))).results]


async def consolidate(memories: Stub, agent_id: str, **fields: Any) -> pb.ConsolidateMemoriesResponse:
    request = {"agent_id": agent_id, "user_id": "ann", **fields}
    return await memories.ConsolidateMemories(pb.ConsolidateMemoriesRequest(**request))


async def kept(memories: Stub, agent_id: str, *, ended: bool = False) -> list[memory_pb2.Memory]:
    request = pb.ListMemoriesRequest(agent_id=agent_id, include_ended=ended, page_size=500)
    return list((await memories.ListMemories(request)).memories)


async def test_what_says_the_same_becomes_one_with_all_its_sources(memories: Stub) -> None:
    agent_id = str(uuid4())
    one, two, three = await store(
        memories,
        agent_id,
        {"key": "user/a", "content": "The user likes green tea.", "trust": TOOL, "source": source(1), "at": towards(0)},
        {"key": "user/b", "content": "User likes green tea!", "trust": USER, "source": source(2), "at": towards(5)},
        {"key": "user/c", "content": "the user really likes Green Tea", "source": source(3), "at": towards(9)},
    )
    shown = await consolidate(memories, agent_id, dry_run=True, request_id=str(uuid7()))
    assert len(await kept(memories, agent_id)) == 3
    request_id = str(uuid7())
    done = await consolidate(memories, agent_id, request_id=request_id)
    assert done == shown
    [action] = done.actions
    assert (action.kind, action.kept_memory_id, done.memory_count) == (MERGE, two.memory_id, 3)
    assert set(action.memory_ids) == {one.memory_id, three.memory_id}
    assert action.reason
    [left] = await kept(memories, agent_id)
    assert (left.memory_id, left.trust, left.source) == (two.memory_id, USER, two.source)
    sources = MessageToDict(left.metadata)["minion_sources"]
    assert {each["quote"] for each in sources} == {"said in 1", "said in 3"}
    revisions = await memories.ListMemoryRevisions(pb.ListMemoryRevisionsRequest(memory_id=one.memory_id))
    newest = revisions.revisions[0]
    assert (newest.cause, newest.reason) == (memory_pb2.REVISION_CAUSE_CONSOLIDATED, action.reason)
    assert newest.memory.superseded_by == two.memory_id
    # A repeat returns the first result; once more there is nothing left to do.
    assert await consolidate(memories, agent_id, request_id=request_id) == done
    assert list((await consolidate(memories, agent_id)).actions) == []
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await consolidate(memories, agent_id, request_id=request_id, prune=True)


@pytest.mark.parametrize("there", [5, None, True, "said", {"a": 1}, [1, "x"]])
async def test_whatever_a_caller_keeps_where_sources_are_noted(memories: Stub, there: Any) -> None:
    agent_id = str(uuid4())
    metadata = Struct()
    metadata.update({"minion_sources": there})
    for trust in (USER, TOOL):
        await store(
            memories,
            agent_id,
            {"key": f"user/{trust}", "content": "The user likes tea.", "trust": trust, "source": source(1)},
        )
    one, two = await kept(memories, agent_id)
    for memory in (one, two):
        await memories.UpdateMemory(
            pb.UpdateMemoryRequest(
                memory=memory_pb2.Memory(memory_id=memory.memory_id, metadata=metadata),
                update_mask=FieldMask(paths=["metadata"]),
            )
        )
    assert len((await consolidate(memories, agent_id)).actions) == 1
    [left] = await kept(memories, agent_id)
    assert [each["quote"] for each in MessageToDict(left.metadata)["minion_sources"]] == ["said in 1"]


async def test_a_merge_can_be_rolled_back(memories: Stub) -> None:
    agent_id = str(uuid4())
    at = towards(0)
    one, two = await store(
        memories,
        agent_id,
        {"key": "user/a", "content": "Likes tea.", "at": at},
        {"key": "user/b", "content": "Likes tea!", "at": at, "trust": USER},
    )
    await consolidate(memories, agent_id)
    await memories.RollbackMemory(pb.RollbackMemoryRequest(memory_id=one.memory_id, revision=1))
    assert {memory.memory_id for memory in await kept(memories, agent_id)} == {one.memory_id, two.memory_id}


async def test_the_same_attribute_said_otherwise_ends_and_answers_as_of_then(memories: Stub) -> None:
    agent_id = str(uuid4())
    older, newer = await store(
        memories,
        agent_id,
        {"key": "User/Home", "content": "Lives in Rome.", "occur_time": day(0)},
        {"key": "user/home", "content": "Lives in Paris.", "occur_time": day(9)},
    )
    done = await consolidate(memories, agent_id)
    [action] = done.actions
    assert (action.kind, list(action.memory_ids), action.kept_memory_id) == (
        SUPERSEDE,
        [older.memory_id],
        newer.memory_id,
    )
    ended = {memory.memory_id: memory for memory in await kept(memories, agent_id, ended=True)}[older.memory_id]
    assert (ended.superseded_by, ended.valid_until) == (newer.memory_id, newer.valid_from)
    assert [memory.content for memory in await kept(memories, agent_id)] == ["Lives in Paris."]


async def test_what_will_take_a_place_is_said_once(memories: Stub) -> None:
    agent_id, then = str(uuid4()), Timestamp(seconds=4_000_000_000)
    older, newer = await store(
        memories,
        agent_id,
        {"key": "User/Home", "content": "The user lives in Rome.", "trust": USER, "occur_time": day(1)},
        {"key": "user/home", "content": "The user will live in Oslo.", "trust": USER, "valid_from": then},
    )
    [action] = (await consolidate(memories, agent_id)).actions
    assert (action.kind, list(action.memory_ids)) == (SUPERSEDE, [older.memory_id])
    # It is so until then, and nothing is left to do.
    there = {memory.memory_id: memory for memory in await kept(memories, agent_id)}
    assert there[older.memory_id].valid_until == newer.valid_from == then
    assert list((await consolidate(memories, agent_id)).actions) == []


async def test_nothing_unrelated_is_touched_nor_are_episodes_or_strangers(memories: Stub, strangers: Stub) -> None:
    agent_id = str(uuid4())
    same = towards(0)
    facts = [
        "The locker code is 1234.",
        "The locker code is 1235.",
        "The user likes tea.",
        "The user does not like tea.",
        "The user prefers tea over coffee.",
        "The user prefers coffee over tea.",
    ]
    await store(
        memories,
        agent_id,
        *({"key": f"user/{index}", "content": fact, "at": same} for index, fact in enumerate(facts)),
        *(
            {"key": f"episode/x/{index}", "content": "Hello.", "at": same, "labels": {"minion.episode": "message"}}
            for index in range(2)
        ),
    )
    await store(memories, agent_id, {"key": "user/x", "content": "The user likes tea.", "user_id": "bob", "at": same})
    await store(strangers, agent_id, *({"key": f"user/{n}", "content": "Same.", "at": same} for n in range(2)))
    before = await kept(memories, agent_id, ended=True)
    done = await consolidate(memories, agent_id, prune=True)
    assert (list(done.actions), done.memory_count) == ([], 6)
    assert await kept(memories, agent_id, ended=True) == before
    assert len(await kept(strangers, agent_id)) == 2


async def test_vectors_far_apart_are_not_joined(memories: Stub) -> None:
    agent_id = str(uuid4())
    await store(
        memories,
        agent_id,
        {"key": "user/a", "content": "Likes tea.", "at": towards(0)},
        {"key": "user/b", "content": "Likes tea!", "at": towards(60)},
    )
    assert list((await consolidate(memories, agent_id)).actions) == []


async def test_pruning_takes_what_is_old_unused_and_of_little_worth(
    postgres: ClonedDatabase, memories: Stub, tenant_id: UUID
) -> None:
    agent_id = str(uuid4())
    worthless, worthy = await store(
        memories,
        agent_id,
        {"key": "user/a", "content": "Said hello.", "importance": 0.1},
        {"key": "user/b", "content": "Is a nurse.", "importance": 0.9},
    )
    assert list((await consolidate(memories, agent_id, prune=True)).actions) == []
    async with await postgres.connect("memory", "owner") as owner:
        await owner.execute("ALTER TABLE memory.memories DISABLE TRIGGER USER")
        await owner.execute(
            "UPDATE memory.memories SET updated_at = now() - interval '100 days' WHERE tenant_id = $1", tenant_id
        )
        await owner.execute("ALTER TABLE memory.memories ENABLE TRIGGER USER")
    assert list((await consolidate(memories, agent_id)).actions) == []
    shown = await consolidate(memories, agent_id, prune=True, dry_run=True)
    assert [(action.kind, list(action.memory_ids)) for action in shown.actions] == [(PRUNE, [worthless.memory_id])]
    assert len(await kept(memories, agent_id)) == 2
    assert await consolidate(memories, agent_id, prune=True) == shown
    assert [memory.memory_id for memory in await kept(memories, agent_id, ended=True)] == [worthy.memory_id]


async def test_what_takes_long_to_read_is_read_with_nothing_locked(
    postgres: ClonedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_id, content = str(uuid4()), "The user likes tea."

    def slowly(said: str) -> tuple[str, ...]:
        time.sleep(3)
        return telling(said)

    # The server ends a transaction that waits longer for its service: shorter than to read two, as it were.
    async with (
        serve("memory", postgres, gateway_address=NOBODY, transaction_idle_seconds=5.0) as served,
        calling(served, uuid4()) as memories,
    ):
        await store(
            memories, agent_id, *({"key": f"user/{each}", "content": content, "at": towards(each)} for each in (0, 1))
        )
        monkeypatch.setattr(domain, "telling", slowly)
        assert len((await consolidate(memories, agent_id)).actions) == 1


@pytest.mark.parametrize(
    "fields", [{"agent_id": ""}, {"agent_id": "x"}, {"user_id": ""}, {"user_id": "x" * 201}, {"request_id": "x"}]
)
async def test_each_limit(memories: Stub, fields: dict[str, str]) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
        await consolidate(memories, **{"agent_id": str(uuid4()), **fields})


async def test_a_scope_with_nothing_in_it(memories: Stub) -> None:
    done = await consolidate(memories, str(uuid4()), prune=True)
    assert (list(done.actions), done.memory_count) == ([], 0)
