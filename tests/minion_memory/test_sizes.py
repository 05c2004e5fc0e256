"""Tenants from ten to many thousands of memories in one table: each finds its nearest, and as many as match."""

from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import asyncpg
import numpy as np
import pytest
from google.protobuf import struct_pb2
from minion.memory.v1 import memory_pb2
from minion_memory.memories.store import packed, prepare
from minion_testing.embeddings import Themes
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, serve
from uuid_utils.compat import uuid7

from tests.minion_memory.stage import DIMENSION, calling, search

EXACT, HNSW, AGAIN = (
    memory_pb2.SEARCH_PLAN_EXACT,
    memory_pb2.SEARCH_PLAN_HNSW,
    memory_pb2.SEARCH_PLAN_HNSW_THEN_EXACT,
)
MakeDatabase = Callable[..., Awaitable[ClonedDatabase]]
_COLUMNS = (
    *("tenant_id", "memory_id", "agent_id", "user_id", "key", "type", "content", "labels", "metadata"),
    *("importance", "confidence", "trust", "model_id"),
)


@dataclass
class Tenant:
    """A tenant with one scope; one memory in fifty is labelled, one in seven hundred noted."""

    tenant_id: UUID
    agent_id: UUID
    ids: list[UUID]
    vectors: np.ndarray

    def nearest(self, wanted: np.ndarray, every: int = 1, limit: int = 10) -> set[str]:
        scores = self.vectors[::every] @ wanted
        return {str(int(place) * every) for place in np.argsort(-scores)[:limit]}


@asynccontextmanager
async def tenants(
    database: ClonedDatabase, sizes: tuple[int, ...], *, queries: int, exact_search_limit: int = 20_000
) -> AsyncIterator[tuple[Served, list[Tenant], np.ndarray]]:
    """Loads tenants of these sizes from behind, with the index made at the end, and serves them."""
    themes = Themes(DIMENSION, 4)
    made = [Tenant(uuid4(), uuid4(), [uuid7() for _ in range(size)], themes.vectors(size)) for size in sizes]
    # COPY knows no row-level security, so it takes who is above it.
    admin = await asyncpg.connect(database.admin_dsn, server_settings={"maintenance_work_mem": "512MB"})
    try:
        await prepare(admin)
        index = await admin.fetchval("SELECT pg_get_indexdef('memory.memory_vectors_1_hnsw'::regclass)")
        await admin.execute("DROP INDEX memory.memory_vectors_1_hnsw")
        await admin.execute("ALTER TABLE memory.memories DISABLE TRIGGER USER")
        for tenant in made:
            await _load(admin, tenant)
        await admin.execute("ALTER TABLE memory.memories ENABLE TRIGGER USER")
        await admin.execute(index)
        await admin.execute("ANALYZE memory.memories")
        await admin.execute("ANALYZE memory.memory_vectors")
    finally:
        await admin.close()
    async with serve("memory", database, exact_search_limit=exact_search_limit, access_write_seconds=3_600) as served:
        yield served, made, themes.vectors(queries)


async def _load(admin: "asyncpg.Connection[asyncpg.Record]", tenant: Tenant) -> None:
    at = (tenant.tenant_id, tenant.agent_id)
    await admin.copy_records_to_table(
        "memories",
        schema_name="memory",
        columns=_COLUMNS,
        records=[
            (
                *(at[0], id_, at[1], "ann", str(number), "fact", "Tea."),
                '{"team": "red"}' if number % 50 == 0 else "{}",
                '{"note": {"kind": ["rare"]}}' if number % 700 == 0 else "{}",
                *(0.5, 1.0, "user", 1),
            )
            for number, id_ in enumerate(tenant.ids)
        ],
    )
    await admin.execute(
        "INSERT INTO memory.scope_counts (tenant_id, agent_id, user_id, fact_count) VALUES ($1, $2, 'ann', $3)",
        *(*at, len(tenant.ids)),
    )
    await admin.copy_records_to_table(
        "memory_vectors",
        schema_name="memory",
        records=[
            (at[0], id_, 1, at[1], "ann", "fact", packed(array("f", vector.tobytes())))
            for id_, vector in zip(tenant.ids, tenant.vectors, strict=True)
        ],
    )


async def check(served: Served, tenant: Tenant, queries: np.ndarray, plan: int) -> None:
    """Searches with and without filters: the nearest are found, and as many as match."""
    note = struct_pb2.Struct()
    note.update({"note": {"kind": ["rare"]}})
    size, agent_id = len(tenant.ids), str(tenant.agent_id)
    right = wanted = 0
    async with calling(served, tenant.tenant_id) as stub:
        for query in queries:
            values = [float(value) for value in query]
            found = await stub.SearchMemories(search(agent_id, values))
            assert (found.plan, found.scope_count, len(found.hits)) == (plan, size, min(10, size))
            right += len({hit.memory.key for hit in found.hits} & tenant.nearest(query))
            wanted += min(10, size)
        for query in queries[:5]:
            values = [float(value) for value in query]
            for every, limit, fields in ((50, 10, {"labels": {"team": "red"}}), (700, 100, {"metadata": note})):
                found = await stub.SearchMemories(search(agent_id, values, limit=limit, **fields))
                matches = -(-size // every)
                assert len(found.hits) == min(limit, matches)
                assert {hit.memory.key for hit in found.hits} == tenant.nearest(query, every, limit)
                assert found.plan == EXACT if plan == EXACT else found.plan in (HNSW, AGAIN)
            none = await stub.SearchMemories(search(agent_id, values, labels={"team": "blue"}))
            assert len(none.hits) == 0
    assert right >= 0.99 * wanted


async def test_every_size_finds_its_nearest(database_factory: MakeDatabase) -> None:
    async with tenants(await database_factory(), (10, 100, 1_000, 6_000), queries=40, exact_search_limit=1_500) as (
        served,
        made,
        queries,
    ):
        for tenant, plan in zip(made, (EXACT, EXACT, EXACT, HNSW), strict=True):
            await check(served, tenant, queries, plan)


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_every_size_to_a_hundred_thousand_finds_its_nearest(database_factory: MakeDatabase) -> None:
    sizes = (10, 100, 1_000, 10_000, 30_000, 100_000)
    async with tenants(await database_factory(), sizes, queries=300) as (served, made, queries):
        for tenant, plan in zip(made, (EXACT, EXACT, EXACT, EXACT, HNSW, HNSW), strict=True):
            await check(served, tenant, queries, plan)
