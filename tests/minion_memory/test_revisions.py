"""Revisions: every change keeps what was there, and any state can be had again."""

from typing import Any
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_postgres import Database
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_memory.stage import MODEL, Stub, batch, placed, search, towards

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
STORED, UPDATED, ROLLED_BACK = (
    memory_pb2.REVISION_CAUSE_STORED,
    memory_pb2.REVISION_CAUSE_UPDATED,
    memory_pb2.REVISION_CAUSE_ROLLED_BACK,
)


async def stored(memories: Stub, **fields: Any) -> memory_pb2.Memory:
    return (await memories.StoreMemories(batch(placed(towards(0), **fields)))).results[0].memory


async def say(memories: Stub, memory_id: str, content: str, **extra: Any) -> memory_pb2.Memory:
    """Changes what a memory says."""
    request = pb.UpdateMemoryRequest(
        memory=memory_pb2.Memory(memory_id=memory_id, content=content),
        update_mask=FieldMask(paths=["content"]),
        **extra,
    )
    return (await memories.UpdateMemory(request)).memory


async def history(memories: Stub, memory_id: str, page_size: int = 0) -> list[memory_pb2.MemoryRevision]:
    """All states of a memory, page by page."""
    revisions: list[memory_pb2.MemoryRevision] = []
    token = ""
    while not revisions or token:
        page = await memories.ListMemoryRevisions(
            pb.ListMemoryRevisionsRequest(memory_id=memory_id, page_size=page_size, page_token=token)
        )
        revisions += page.revisions
        token = page.next_page_token
    return revisions


def back(memory_id: str, revision: int, **extra: Any) -> pb.RollbackMemoryRequest:
    return pb.RollbackMemoryRequest(memory_id=memory_id, revision=revision, **extra)


async def test_every_change_is_a_revision_with_its_cause(memories: Stub) -> None:
    agent_id = str(uuid4())
    first = await stored(memories, agent_id=agent_id, key="drink", content="Tea.")
    second = await stored(memories, agent_id=agent_id, key="drink", content="Coffee.")
    third = await say(memories, first.memory_id, "Water.", reason="She said so.")
    revisions = await history(memories, first.memory_id)
    assert [revision.memory for revision in revisions] == [third, second, first]
    assert [revision.cause for revision in revisions] == [UPDATED, STORED, STORED]
    assert [revision.reason for revision in revisions] == ["She said so.", "", ""]
    assert {revision.principal for revision in revisions} == {"key:test"}
    assert [revision.create_time for revision in revisions] == [memory.update_time for memory in (third, second, first)]
    assert [revision.memory.revision for revision in revisions] == [3, 2, 1]


async def test_a_memory_that_never_changed_takes_no_row_more(
    memories: Stub, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    memory = await stored(memories)
    await stored(memories, agent_id=memory.agent_id)
    await stored(memories, agent_id=memory.agent_id, content=memory.content)
    assert [revision.memory for revision in await history(memories, memory.memory_id)] == [memory]
    async with await postgres.connect("memory", "owner") as owner:
        kept = await owner.fetch_value("SELECT count(*) FROM memory.memory_revisions WHERE tenant_id = $1", tenant_id)
    assert kept == 0


async def test_history_pages_without_gap_or_repeat(memories: Stub) -> None:
    memory = await stored(memories)
    for number in range(6):
        await say(memories, memory.memory_id, f"{number}")
    revisions = await history(memories, memory.memory_id, page_size=3)
    assert [revision.memory.revision for revision in revisions] == [7, 6, 5, 4, 3, 2, 1]
    assert await history(memories, memory.memory_id, page_size=1) == revisions
    assert await history(memories, memory.memory_id, page_size=7) == revisions


async def test_page_of_large_states_ends_before_a_client_refuses_it(memories: Stub) -> None:
    memory = await stored(memories, content="é" * 32_000)
    for number in range(60):
        await say(memories, memory.memory_id, f"{number}" + "é" * 32_000)
    page = await memories.ListMemoryRevisions(pb.ListMemoryRevisionsRequest(memory_id=memory.memory_id, page_size=100))
    assert page.next_page_token
    assert page.ByteSize() < 3 * 1024 * 1024
    revisions = await history(memories, memory.memory_id, page_size=100)
    assert [revision.memory.revision for revision in revisions] == list(range(61, 0, -1))


async def test_history_of_absent_and_foreign_memories_is_not_found(memories: Stub, strangers: Stub) -> None:
    memory = await stored(memories)
    async with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
        await memories.ListMemoryRevisions(pb.ListMemoryRevisionsRequest(memory_id=str(uuid7())))
    async with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
        await strangers.ListMemoryRevisions(pb.ListMemoryRevisionsRequest(memory_id=memory.memory_id))


async def test_list_of_revisions_checks_its_fields(memories: Stub) -> None:
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await memories.ListMemoryRevisions(pb.ListMemoryRevisionsRequest(memory_id="nonsense", page_size=-1))
    assert set(refusal.violations) == {"memory_id", "page_size"}
    memory = await stored(memories)
    await say(memories, memory.memory_id, "Other.")
    page = await memories.ListMemoryRevisions(pb.ListMemoryRevisionsRequest(memory_id=memory.memory_id, page_size=1))
    for token, memory_id in ((page.next_page_token, (await stored(memories)).memory_id), ("x", memory.memory_id)):
        async with refused(INVALID, "PAGE_TOKEN_INVALID"):
            await memories.ListMemoryRevisions(pb.ListMemoryRevisionsRequest(memory_id=memory_id, page_token=token))


async def test_rollback_brings_a_state_back_as_the_next_revision(memories: Stub) -> None:
    agent_id = str(uuid4())
    first = await stored(
        memories,
        agent_id=agent_id,
        key="drink",
        content="Tea.",
        trust=memory_pb2.MEMORY_TRUST_USER,
        labels={"a": "b"},
        valid_until=Timestamp(seconds=4_000_000_000),
    )
    await stored(memories, agent_id=agent_id, key="drink", content="Coffee.", type=memory_pb2.MEMORY_TYPE_SKILL)
    restored = (await memories.RollbackMemory(back(first.memory_id, 1))).memory
    expected = memory_pb2.Memory()
    expected.CopyFrom(first)
    expected.revision, expected.etag = 3, "3"
    expected.embedding_model = ""  # nobody embeds just now
    expected.update_time.CopyFrom(restored.update_time)
    assert restored == expected
    newest, *former = await history(memories, first.memory_id)
    assert newest.memory == restored
    assert (newest.cause, newest.reason) == (ROLLED_BACK, "Rolled back to revision 1.")
    assert [revision.memory.content for revision in former] == ["Coffee.", "Tea."]


async def test_rollback_of_the_rest_keeps_the_vector(memories: Stub) -> None:
    first = await stored(memories)
    await memories.UpdateMemory(
        pb.UpdateMemoryRequest(
            memory=memory_pb2.Memory(memory_id=first.memory_id, speaker="Ann"), update_mask=FieldMask(paths=["speaker"])
        )
    )
    restored = (await memories.RollbackMemory(back(first.memory_id, 1))).memory
    assert (restored.speaker, restored.embedding_model) == ("", MODEL)
    assert len((await memories.SearchMemories(search(first.agent_id, towards(0)))).hits) == 1


async def test_rollback_to_where_it_is_changes_nothing(memories: Stub) -> None:
    first = await stored(memories)
    assert (await memories.RollbackMemory(back(first.memory_id, 1))).memory == first


async def test_replayed_rollback_returns_the_first_result(memories: Stub) -> None:
    first = await stored(memories)
    await say(memories, first.memory_id, "Coffee.")
    request = back(first.memory_id, 1, request_id=str(uuid7()))
    answer = await memories.RollbackMemory(request)
    await say(memories, first.memory_id, "Water.")
    assert await memories.RollbackMemory(request) == answer
    assert (await memories.GetMemory(pb.GetMemoryRequest(memory_id=first.memory_id))).memory.content == "Water."
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await memories.RollbackMemory(back(first.memory_id, 2, request_id=request.request_id))


async def test_rollback_checks_etag_memory_and_revision(memories: Stub, strangers: Stub) -> None:
    first = await stored(memories)
    second = await say(memories, first.memory_id, "Coffee.")
    async with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH") as refusal:
        await memories.RollbackMemory(back(first.memory_id, 1, etag=first.etag))
    assert refusal.metadata == {"memory_id": first.memory_id, "etag": "2"}
    async with refused(NOT_FOUND, "REVISION_NOT_FOUND") as refusal:
        await memories.RollbackMemory(back(first.memory_id, 3))
    assert refusal.metadata == {"memory_id": first.memory_id, "revision": "3"}
    async with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
        await memories.RollbackMemory(back(str(uuid7()), 1))
    async with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
        await strangers.RollbackMemory(back(first.memory_id, 1))
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await memories.RollbackMemory(back("nonsense", 0, request_id="nonsense"))
    assert set(refusal.violations) == {"memory_id", "revision", "request_id"}
    assert (await memories.GetMemory(pb.GetMemoryRequest(memory_id=first.memory_id))).memory == second


async def test_deleting_a_memory_deletes_all_that_hangs_on_it(
    memories: Stub, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    memory = await stored(memories, labels={"a": "b"})
    await say(memories, memory.memory_id, "Coffee.")
    connection = await asyncpg.connect(postgres.admin_dsn)
    try:
        await connection.execute(
            "INSERT INTO memory.memory_access (tenant_id, memory_id) VALUES ($1, $2)", tenant_id, UUID(memory.memory_id)
        )
        await memories.DeleteMemory(pb.DeleteMemoryRequest(memory_id=memory.memory_id))
        for table in ("memory_revisions", "memory_access", "memory_labels", "memory_vectors", "unembedded_memories"):
            left = await connection.fetchval(
                f"SELECT count(*) FROM memory.{table} WHERE tenant_id = $1",  # noqa: S608 - a name of ours
                tenant_id,
            )
            assert left == 0, table
    finally:
        await connection.close()


@pytest.fixture
async def app(postgres: ClonedDatabase) -> Any:
    """A pool as the app role."""
    async with await postgres.connect("memory") as database:
        yield database


async def test_other_writers_end_memories_the_same_way(memories: Stub, app: Database, tenant_id: UUID) -> None:
    old, new = await stored(memories, valid_from=Timestamp(seconds=1_000)), await stored(memories, key="new")
    ended = await app.fetch_value(
        "SELECT memory.end_memory($1, $2, now(), $3, 'consolidated', 'She moved.', 'service:memory')",
        tenant_id,
        UUID(old.memory_id),
        UUID(new.memory_id),
    )
    assert ended is True
    newest, former = await history(memories, old.memory_id)
    assert newest.memory.HasField("valid_until")
    assert newest.memory.superseded_by == new.memory_id
    assert (newest.cause, newest.reason) == (memory_pb2.REVISION_CAUSE_CONSOLIDATED, "She moved.")
    assert former.memory == old
    # Said once more, it is so again, and nothing has taken its place.
    again = await stored(memories, agent_id=old.agent_id)
    assert (again.HasField("valid_until"), again.superseded_by) == (False, "")
    # What never was can't end; nor can another tenant's.
    for tenant, memory in ((tenant_id, uuid7()), (uuid4(), UUID(old.memory_id))):
        assert not await app.fetch_value(
            "SELECT memory.end_memory($1, $2, now(), NULL, 'consolidated', '', '')", tenant, memory
        )


async def test_update_that_makes_a_memory_so_again_drops_its_successor(
    memories: Stub, app: Database, tenant_id: UUID
) -> None:
    old = await stored(memories)
    await app.fetch_value(
        "SELECT memory.end_memory($1, $2, now(), $2, 'consolidated', '', '')", tenant_id, UUID(old.memory_id)
    )
    request = pb.UpdateMemoryRequest(
        memory=memory_pb2.Memory(memory_id=old.memory_id), update_mask=FieldMask(paths=["valid_until"])
    )
    after = (await memories.UpdateMemory(request)).memory
    assert (after.HasField("valid_until"), after.superseded_by) == (False, "")


async def test_times_run_forwards_when_the_clock_does_not(
    memories: Stub, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    memory = await stored(memories)
    connection = await asyncpg.connect(postgres.admin_dsn)
    try:
        # As if it was written while the clock was an hour ahead.
        await connection.execute("ALTER TABLE memory.memories DISABLE TRIGGER keep_revision")
        await connection.execute(
            "UPDATE memory.memories SET updated_at = now() + interval '1 h' WHERE tenant_id = $1", tenant_id
        )
        await connection.execute("ALTER TABLE memory.memories ENABLE TRIGGER keep_revision")
    finally:
        await connection.close()
    await say(memories, memory.memory_id, "Coffee.")
    newest, former = await history(memories, memory.memory_id)
    assert newest.create_time.ToNanoseconds() == former.create_time.ToNanoseconds() + 1_000
