"""Recall and completeness in a scope of 30,000 memories, with the settings as they come."""

from array import array
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID, uuid4

import asyncpg
import numpy as np
import pytest
import pytest_asyncio
from minion.memory.v1 import memory_pb2
from minion_memory.memories.store import packed, prepare
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import serve
from uuid_utils.compat import uuid7

from tests.minion_memory.stage import DIMENSION, Stub, calling, search

pytestmark = pytest.mark.slow

_ROWS = 30_000
_CENTRES = 300
EXACT, HNSW, AGAIN = (
    memory_pb2.SEARCH_PLAN_EXACT,
    memory_pb2.SEARCH_PLAN_HNSW,
    memory_pb2.SEARCH_PLAN_HNSW_THEN_EXACT,
)
FACT, SKILL, CONTEXT = memory_pb2.MEMORY_TYPE_FACT, memory_pb2.MEMORY_TYPE_SKILL, memory_pb2.MEMORY_TYPE_CONTEXT


@dataclass
class Scope:
    """A scope of 30,000 memories in clusters: one in a hundred a skill, one in 3,000 a context, the rest facts."""

    stub: Stub
    agent_id: str
    centres: np.ndarray
    vectors: np.ndarray
    types: np.ndarray

    def query(self, seed: int) -> list[float]:
        source = np.random.default_rng(seed)
        wanted = self.centres[source.integers(_CENTRES)] + source.normal(size=DIMENSION) * 0.6
        return [float(value) for value in wanted / np.linalg.norm(wanted)]

    def nearest(self, wanted: list[float], limit: int, kind: str | None = None) -> set[str]:
        scores = self.vectors @ np.asarray(wanted, dtype=np.float32)
        if kind:
            scores = np.where(self.types == kind, scores, -2)
        return {str(number) for number in np.argsort(-scores)[:limit]}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scope(postgres: ClonedDatabase) -> AsyncIterator[Scope]:
    """Loaded from behind, with the index made at the end: one by one it would take ten times as long."""
    tenant_id, agent_id = uuid4(), uuid4()
    source = np.random.default_rng(1)
    centres = source.normal(size=(_CENTRES, DIMENSION))
    vectors = centres[source.integers(_CENTRES, size=_ROWS)] + source.normal(size=(_ROWS, DIMENSION)) * 0.6
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    numbers = np.arange(_ROWS)
    types = np.where(numbers % 3_000 == 1, "context", np.where(numbers % 100 == 0, "skill", "fact"))
    ids = [uuid7() for _ in range(_ROWS)]
    await _load(postgres, tenant_id, agent_id, ids, types, vectors)
    async with serve("memory", postgres, access_write_seconds=3_600) as served, calling(served, tenant_id) as stub:
        yield Scope(stub, str(agent_id), centres, vectors, types)


async def _load(
    database: ClonedDatabase, tenant_id: UUID, agent_id: UUID, ids: list[UUID], types: np.ndarray, vectors: np.ndarray
) -> None:
    # COPY knows no row-level security, so it takes who is above it.
    admin = await asyncpg.connect(database.admin_dsn, server_settings={"maintenance_work_mem": "512MB"})
    try:
        await prepare(admin)
        made = await admin.fetchval("SELECT pg_get_indexdef('memory.memory_vectors_1_hnsw'::regclass)")
        await admin.execute("DROP INDEX memory.memory_vectors_1_hnsw")
        await admin.execute("ALTER TABLE memory.memories DISABLE TRIGGER USER")
        await admin.copy_records_to_table(
            "memories",
            schema_name="memory",
            columns=[
                *("tenant_id", "memory_id", "agent_id", "user_id", "key", "type", "content"),
                *("importance", "confidence", "trust", "model_id"),
            ],
            records=[
                (tenant_id, ids[n], agent_id, "ann", str(n), str(types[n]), "Tea.", 0.5, 1.0, "user", 1)
                for n in range(len(ids))
            ],
        )
        await admin.execute("ALTER TABLE memory.memories ENABLE TRIGGER USER")
        await admin.execute(
            "INSERT INTO memory.scope_counts (tenant_id, agent_id, user_id, fact_count, context_count, skill_count)"
            " VALUES ($1, $2, 'ann', $3, $4, $5)",
            *(tenant_id, agent_id),
            *(int((types == kind).sum()) for kind in ("fact", "context", "skill")),
        )
        await admin.copy_records_to_table(
            "memory_vectors",
            schema_name="memory",
            records=[
                (tenant_id, ids[n], 1, agent_id, "ann", str(types[n]), packed(array("f", vectors[n].tolist())))
                for n in range(len(ids))
            ],
        )
        await admin.execute(made)
        await admin.execute("ANALYZE memory.memories")
        await admin.execute("ANALYZE memory.memory_vectors")
    finally:
        await admin.close()


async def test_walk_finds_the_nearest(scope: Scope) -> None:
    right = 0
    for seed in range(100):
        wanted = scope.query(seed)
        found = await scope.stub.SearchMemories(search(scope.agent_id, wanted))
        assert (found.plan, found.scope_count, len(found.hits)) == (HNSW, _ROWS, 10)
        right += len({hit.memory.key for hit in found.hits} & scope.nearest(wanted, 10))
    assert right >= 990  # of 1,000


@pytest.mark.parametrize(("kind", "name", "count"), [(SKILL, "skill", 300), (CONTEXT, "context", 10)])
@pytest.mark.parametrize("limit", [10, 100])
async def test_filter_brings_as_many_as_match_and_the_nearest(
    scope: Scope, kind: memory_pb2.MemoryType.ValueType, name: str, count: int, limit: int
) -> None:
    for seed in range(1_000, 1_010):
        wanted = scope.query(seed)
        found = await scope.stub.SearchMemories(search(scope.agent_id, wanted, types=[kind], limit=limit))
        assert len(found.hits) == min(limit, count)
        assert {hit.memory.key for hit in found.hits} == scope.nearest(wanted, min(limit, count), name)
        assert found.plan == EXACT


async def test_wide_filter_is_walked(scope: Scope) -> None:
    right = 0
    for seed in range(2_000, 2_020):
        wanted = scope.query(seed)
        found = await scope.stub.SearchMemories(search(scope.agent_id, wanted, types=[FACT]))
        assert (found.plan, len(found.hits)) == (HNSW, 10)
        right += len({hit.memory.key for hit in found.hits} & scope.nearest(wanted, 10, "fact"))
    assert right >= 198  # of 200


async def test_least_score_is_exact(scope: Scope) -> None:
    wanted = scope.query(3_000)
    scores = np.sort(scope.vectors @ np.asarray(wanted, dtype=np.float32))[::-1]
    least = float(scores[41] + scores[42]) / 2
    found = await scope.stub.SearchMemories(search(scope.agent_id, wanted, min_score=least, limit=100))
    assert {hit.memory.key for hit in found.hits} == scope.nearest(wanted, 42)
    assert found.plan == AGAIN
