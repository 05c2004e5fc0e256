"""Retention: memories of a type go when they were kept for long enough, of all tenants."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_memory.memories.domain import MemoryType
from minion_memory.settings import MemorySettings
from minion_memory.subjects.domain import Retention
from minion_memory.subjects.service import Pruning
from minion_memory.subjects.store import SubjectStore
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import serve

from tests.minion_memory.stage import Stub, batch, calling, placed, towards

FACT, CONTEXT = memory_pb2.MEMORY_TYPE_FACT, memory_pb2.MEMORY_TYPE_CONTEXT


async def fill(memories: Stub, count: int = 5) -> None:
    await memories.StoreMemories(
        batch(
            *[
                placed(towards(0), key=f"{kind} {number}", type=kind)
                for kind in (FACT, CONTEXT)
                for number in range(count)
            ]
        )
    )


async def age(postgres: ClonedDatabase, tenant_id: UUID, days: int) -> None:
    """Makes a tenant's memories as old as this."""
    connection = await asyncpg.connect(postgres.admin_dsn)
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            await connection.execute(
                "UPDATE memory.memories SET updated_at = now() - $2::interval WHERE tenant_id = $1",
                tenant_id,
                timedelta(days=days),
            )
    finally:
        await connection.close()


async def left(memories: Stub) -> list[int]:
    """The types of the memories that are there."""
    page = await memories.ListMemories(pb.ListMemoriesRequest())
    return sorted(memory.type for memory in page.memories)


async def test_old_memories_of_a_type_go_in_batches(
    memories: Stub, strangers: Stub, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    await fill(memories)
    await fill(strangers, 1)
    await age(postgres, tenant_id, 31)
    async with await postgres.connect("memory") as app:
        pruning = Pruning(SubjectStore(app, batch=2), Retention({MemoryType.CONTEXT: timedelta(days=30)}))
        assert await pruning.prune() == 5
        assert await pruning.prune() == 0
        async with app.transaction(tenant_id) as own:
            counted = await own.fetch_value("SELECT sum(memory_count) FROM memory.scope_counts")
    assert await left(memories) == [FACT] * 5
    assert counted == 5
    assert await left(strangers) == [FACT, CONTEXT]


async def test_the_service_prunes_by_its_settings(postgres: ClonedDatabase) -> None:
    tenant_id = uuid4()
    async with (
        serve("memory", postgres, context_kept=30, prune_seconds=0.05) as served,
        calling(served, tenant_id) as memories,
    ):
        await fill(memories, 2)
        assert await left(memories) == [FACT, FACT, CONTEXT, CONTEXT]
        await age(postgres, tenant_id, 31)
        async with asyncio.timeout(60):
            while True:
                if await left(memories) == [FACT, FACT]:
                    break
                await asyncio.sleep(0.01)


def test_what_no_setting_names_is_kept_for_ever() -> None:
    environ = {"MINION_DATABASE_URL": "postgresql://localhost/none", "MINION_AUTH_MODE": "disabled"}
    assert MemorySettings.load(environ).retention.kept == {}
    settings = MemorySettings.load({**environ, "MINION_MEMORY_CONTEXT_KEPT": "7", "MINION_MEMORY_SKILL_KEPT": "0.5"})
    assert settings.retention.kept == {
        MemoryType.CONTEXT: timedelta(days=7),
        MemoryType.SKILL: timedelta(hours=12),
    }
