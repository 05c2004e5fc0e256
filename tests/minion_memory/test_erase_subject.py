"""EraseSubject: nothing of a user is left, and nothing of others is touched."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_memory.subjects.store import SubjectStore
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_memory.stage import Stub, batch, placed, scattered, search, towards

_TABLES = (
    *("memories", "memory_vectors", "memory_revisions", "memory_access", "memory_labels", "unembedded_memories"),
    *("scope_counts", "idempotency_keys"),
)


async def rows(postgres: ClonedDatabase, tenant_id: UUID) -> dict[str, int]:
    """How many rows a tenant has in each table."""
    connection = await asyncpg.connect(postgres.admin_dsn)
    try:
        return {
            table: await connection.fetchval(
                f"SELECT count(*) FROM memory.{table} WHERE tenant_id = $1",  # noqa: S608 - a name of ours
                tenant_id,
            )
            for table in _TABLES
        }
    finally:
        await connection.close()


async def stored(memories: Stub, **fields: Any) -> memory_pb2.Memory:
    request = batch(placed(towards(0), **fields), request_id=uuid7())
    return (await memories.StoreMemories(request)).results[0].memory


async def say(memories: Stub, memory_id: str, content: str) -> None:
    await memories.UpdateMemory(
        pb.UpdateMemoryRequest(
            memory=memory_pb2.Memory(memory_id=memory_id, content=content),
            update_mask=FieldMask(paths=["content"]),
            request_id=str(uuid7()),
        )
    )


async def erase(memories: Stub, user_id: str, request_id: str = "") -> pb.ErasureReceipt:
    return (await memories.EraseSubject(pb.EraseSubjectRequest(user_id=user_id, request_id=request_id))).receipt


async def test_nothing_of_the_user_is_left(memories: Stub, postgres: ClonedDatabase, tenant_id: UUID) -> None:
    for _ in range(2):
        first = await stored(memories, labels={"a": "b"})
        await say(memories, first.memory_id, "Coffee.")
        await memories.RollbackMemory(
            pb.RollbackMemoryRequest(memory_id=first.memory_id, revision=1, request_id=str(uuid7()))
        )
    gone = await stored(memories, key="gone")
    await memories.DeleteMemory(pb.DeleteMemoryRequest(memory_id=gone.memory_id, request_id=str(uuid7())))
    await stored(memories, key="placed")
    erasure_id = str(uuid7())
    receipt = await erase(memories, "ann", erasure_id)
    assert receipt.erasure_id == erasure_id
    assert (receipt.memory_count, receipt.vector_count, receipt.revision_count) == (3, 1, 4)
    assert (receipt.stored_reply_count, receipt.extraction_job_count) == (9, 0)
    assert receipt.erase_time.ToNanoseconds() > first.create_time.ToNanoseconds()
    assert set((await rows(postgres, tenant_id)).values()) == {0}
    # Again it finds nothing.
    again = await erase(memories, "ann")
    assert UUID(again.erasure_id).version == 7
    assert (again.memory_count, again.vector_count, again.revision_count, again.stored_reply_count) == (0, 0, 0, 0)


async def test_others_keep_what_they_have(
    memories: Stub, strangers: Stub, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    agent_id = str(uuid4())
    bobs = await stored(memories, agent_id=agent_id, user_id="bob")
    hers_elsewhere = await stored(strangers, agent_id=agent_id)
    before = await rows(postgres, tenant_id)
    await stored(memories, agent_id=agent_id)
    await erase(memories, "ann")
    assert await rows(postgres, tenant_id) == before
    assert (await memories.GetMemory(pb.GetMemoryRequest(memory_id=bobs.memory_id))).memory == bobs
    read = await strangers.GetMemory(pb.GetMemoryRequest(memory_id=hers_elsewhere.memory_id))
    assert read.memory == hers_elsewhere
    assert (await memories.SearchMemories(search(agent_id, towards(0)))).scope_count == 0


async def test_a_batch_of_several_users_keeps_no_content_for_replays(
    memories: Stub, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    request = batch(placed(towards(0), content="Her secret."), placed(towards(0), user_id="bob"), request_id=uuid7())
    await memories.StoreMemories(request)
    receipt = await erase(memories, "ann")
    assert (receipt.memory_count, receipt.stored_reply_count) == (1, 0)
    async with await postgres.connect("memory", "owner") as owner:
        kept = await owner.fetch("SELECT result::text FROM memory.idempotency_keys WHERE tenant_id = $1", tenant_id)
    assert len(kept) == 1
    assert "secret" not in kept[0]["result"]
    assert "ann" not in kept[0]["result"]


async def test_a_large_subject_goes_in_parts(memories: Stub, postgres: ClonedDatabase, tenant_id: UUID) -> None:
    for number in range(5):
        await stored(memories, key=str(number))
    async with await postgres.connect("memory") as app:
        store = SubjectStore(app, batch=2)
        parts = [await store.erase(tenant_id, "ann") for _ in range(3)]
    assert [part.memory_count for part in parts] == [2, 2, 1]
    assert [part.done for part in parts] == [False, False, True]
    assert set((await rows(postgres, tenant_id)).values()) == {0}


async def test_storing_and_erasing_at_once_leaves_exact_counts(
    memories: Stub, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    agents = [str(uuid4()) for _ in range(3)]

    async def write(number: int) -> None:
        await memories.StoreMemories(
            batch(*[placed(scattered(number), agent_id=agent_id, key=str(number % 4)) for agent_id in agents])
        )

    await asyncio.gather(*[write(number) for number in range(30)], *[erase(memories, "ann") for _ in range(10)])
    connection = await asyncpg.connect(postgres.admin_dsn)
    try:
        counted = await connection.fetchval(
            "SELECT coalesce(sum(memory_count), 0) FROM memory.scope_counts WHERE tenant_id = $1", tenant_id
        )
    finally:
        await connection.close()
    assert counted == (await rows(postgres, tenant_id))["memories"]
    await erase(memories, "ann")
    assert set((await rows(postgres, tenant_id)).values()) == {0}


@pytest.mark.parametrize(
    "late",
    [
        "SELECT memory.delete_memory($1, NULL, NULL, $2)",
        "SELECT memory.change_memory($1, NULL, 'UpdateMemory', NULL, $2, NULL, '{}', NULL, NULL, 'updated', '', '')",
        "SELECT memory.end_memory($1, $2, now(), NULL, 'extracted', '', '')",
        "SELECT memory.place_unembedded($1, 1::smallint, ARRAY[$2::uuid], ARRAY[''::bytea], ARRAY[NULL::vector])",
        "SELECT memory.prune_outlived($1, 'fact', 'infinity', 10), $2::uuid",
    ],
    ids=lambda statement: statement.split("(")[0].split(".")[1],
)
async def test_who_waited_for_an_erasure_leaves_nothing_that_names_the_user(
    memories: Stub, postgres: ClonedDatabase, tenant_id: UUID, late: str
) -> None:
    memory_id = UUID((await stored(memories)).memory_id)
    eraser, writer, watcher = [
        await asyncpg.connect(dsn) for dsn in (*[postgres.dsn("memory")] * 2, postgres.admin_dsn)
    ]
    try:
        writer_id = await writer.fetchval("SELECT pg_backend_pid()")

        async def waits() -> bool:
            waiting = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
            return bool(await watcher.fetchval(waiting, writer_id))

        async with eraser.transaction():
            assert await eraser.fetchval("SELECT done FROM memory.erase_subject($1, 'ann', 100)", tenant_id)
            writing = asyncio.create_task(writer.fetchval(late, tenant_id, memory_id))
            async with asyncio.timeout(60):
                while not await waits():
                    assert not writing.done()
                    await asyncio.sleep(0.01)
        await writing
    finally:
        for connection in (eraser, writer, watcher):
            await connection.close()
    assert set((await rows(postgres, tenant_id)).values()) == {0}


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"user_id": ""}, "user_id"), ({"user_id": "x" * 201}, "user_id"), ({"request_id": "nonsense"}, "request_id")],
)
async def test_erasure_checks_its_fields(memories: Stub, fields: dict[str, str], field: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await memories.EraseSubject(pb.EraseSubjectRequest(**{"user_id": "ann", **fields}))
    assert set(refusal.violations) == {field}


async def test_counts_go_with_their_own_tenant_alone(memories: Stub, postgres: ClonedDatabase, tenant_id: UUID) -> None:
    memory = await stored(memories)
    agent_id = UUID(memory.agent_id)
    await memories.DeleteMemory(pb.DeleteMemoryRequest(memory_id=memory.memory_id))
    async with await postgres.connect("memory") as app:
        async with app.transaction(uuid4()) as foreign:
            await foreign.execute("SELECT memory.forget_scopes($1, ARRAY[$2::uuid], 'ann')", tenant_id, agent_id)
        assert (await rows(postgres, tenant_id))["scope_counts"] == 1
        async with app.transaction(tenant_id) as own:
            await own.execute("SELECT memory.forget_scopes($1, ARRAY[$2::uuid], 'ann')", tenant_id, agent_id)
        assert (await rows(postgres, tenant_id))["scope_counts"] == 0
