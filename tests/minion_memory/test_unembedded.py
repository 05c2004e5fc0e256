"""Memories without a vector are handed out to whoever makes them one, each for a while."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_postgres import Database
from minion_testing.postgres import ClonedDatabase

from tests.minion_memory.stage import Stub, batch, memory, placed, towards

_PICK = "SELECT * FROM memory.pick_unembedded($1)"


@pytest_asyncio.fixture(loop_scope="session")
async def app(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """A pool as the app role."""
    async with await postgres.connect("memory") as database:
        yield database


async def picked(app: Database, tenant_id: UUID) -> dict[str, int]:
    """Picks all that is due; gives the tenant's, with how often they were picked."""
    rows = await app.fetch(_PICK, 1_000)
    return {str(row["memory_id"]): row["attempt_count"] for row in rows if row["tenant_id"] == tenant_id}


async def pause_after_picking(postgres: ClonedDatabase, tenant_id: UUID) -> timedelta:
    """Picks all that is due; gives after how long the tenant's one comes again, counted from the pick."""
    connection = await asyncpg.connect(postgres.admin_dsn)
    try:
        # Within a transaction it is always the same moment.
        async with connection.transaction():
            await connection.fetch(_PICK, 1_000)
            pause = await connection.fetchval(
                "SELECT due_time - now() FROM memory.unembedded_memories WHERE tenant_id = $1", tenant_id
            )
    finally:
        await connection.close()
    assert isinstance(pause, timedelta)
    return pause


async def pass_time(postgres: ClonedDatabase, tenant_id: UUID, seconds: int) -> None:
    connection = await asyncpg.connect(postgres.admin_dsn)
    try:
        await connection.execute(
            "UPDATE memory.unembedded_memories SET due_time = due_time - $2 * interval '1 s' WHERE tenant_id = $1",
            tenant_id,
            seconds,
        )
    finally:
        await connection.close()


async def stored(memories: Stub, **fields: Any) -> str:
    response = await memories.StoreMemories(batch(pb.NewMemory(memory=memory(**fields))))
    return response.results[0].memory.memory_id


async def test_each_is_picked_by_one_and_comes_again_later_each_time(
    memories: Stub, app: Database, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    memory_id = await stored(memories)
    await memories.StoreMemories(batch(placed(towards(0))))
    for seconds in (30, 60, 120):
        assert await pause_after_picking(postgres, tenant_id) == timedelta(seconds=seconds)
        assert await picked(app, tenant_id) == {}
        await pass_time(postgres, tenant_id, seconds)
    assert await picked(app, tenant_id) == {memory_id: 4}
    for _ in range(20):
        await pass_time(postgres, tenant_id, 3_600)
        assert memory_id in await picked(app, tenant_id)


async def test_no_more_are_picked_than_asked_for(memories: Stub, app: Database) -> None:
    for number in range(3):
        await stored(memories, key=str(number))
    assert len(await app.fetch(_PICK, 2)) == 2


async def test_a_new_text_is_due_at_once(memories: Stub, app: Database, tenant_id: UUID) -> None:
    memory_id = await stored(memories)
    assert await picked(app, tenant_id) == {memory_id: 1}
    request = pb.UpdateMemoryRequest(
        memory=memory_pb2.Memory(memory_id=memory_id, speaker="Ann"), update_mask=FieldMask(paths=["speaker"])
    )
    await memories.UpdateMemory(request)
    assert await picked(app, tenant_id) == {}
    request = pb.UpdateMemoryRequest(
        memory=memory_pb2.Memory(memory_id=memory_id, content="Coffee."), update_mask=FieldMask(paths=["content"])
    )
    await memories.UpdateMemory(request)
    assert await picked(app, tenant_id) == {memory_id: 1}


async def test_what_has_a_vector_or_is_gone_is_not_picked(memories: Stub, app: Database, tenant_id: UUID) -> None:
    gone, vectored = await stored(memories), await stored(memories, key="k")
    await memories.DeleteMemory(pb.DeleteMemoryRequest(memory_id=gone))
    read = (await memories.GetMemory(pb.GetMemoryRequest(memory_id=vectored))).memory
    await memories.StoreMemories(batch(placed(towards(0), agent_id=read.agent_id, key="k")))
    assert await picked(app, tenant_id) == {}
