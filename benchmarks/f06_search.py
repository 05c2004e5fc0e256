"""F6: a search with the vector given, against the bare statement on the same rows.

Two scopes in one table: 100,000 memories, which are found by the index, and 10,000, which are compared. The memory
service is a process of its own, with identity, row-level security, metrics and logs on. The yardstick is what one would
write by hand: the nearest of the scope in the vectors' own table, with the memories that they belong to, and with no
row-level security. Where the index is walked, both have as few candidates as the yardstick needs for 99 of 100 of the
nearest: its default gives the service more, which would compare two recalls. The same statement behind a bare gRPC call
(`python -m benchmarks.f06_search`, see `bare_call`) is measured beside it, with no verdict: what any service could
reach.
"""

import asyncio
import itertools
import os
from array import array
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import grpc
import numpy as np
import psutil
import uvloop
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_auth import ServiceTokens
from minion_memory.memories.store import packed, prepare
from minion_testing.embeddings import Themes
from minion_testing.postgres import ClonedDatabase, cluster
from minion_testing.serving import SERVICE_KEY
from pgvector import Vector
from uuid_utils.compat import uuid7

from benchmarks import session_stage
from benchmarks.bare_call import serve_asked
from benchmarks.figure import Comparison, Figure, Operation, Options, interleave, process_tree, run_slice
from benchmarks.serving import serving

ID = "F6"
# The client is what calls in a deployment: the gateway.
LOOP_FACTORY = uvloop.new_event_loop

_SERVICE, _RPC = "minion.memory.v1.MemoryService", "SearchMemories"
_METHOD = f"/{_SERVICE}/{_RPC}"
_MODEL, _DIMENSION = "local/all-minilm-l6-v2", 384
_LARGE, _SMALL, _SHORT_LARGE, _SHORT_SMALL = 100_000, 10_000, 30_000, 2_000
# Fine enough that the yardstick walks no further than it has to.
_CANDIDATES = (*range(20, 120, 10), 120, 140, 160, 200, 300, 400)
_QUERIES, _LIMIT = 500, 10
_CONCURRENCY = 4
_RATE_GOAL, _LATENCY_GOAL, _RECALL_GOAL = 0.5, 2.0, 0.99
_COLUMNS = (
    *("tenant_id", "memory_id", "agent_id", "user_id", "key", "type", "content"),
    *("importance", "confidence", "trust", "model_id"),
)
# What a caller is given of a memory beside its vector's distance.
_BARE = """
SELECT m.memory_id, m.agent_id, m.user_id, m.key, m.type, m.content, m.speaker, m.importance, m.confidence, m.trust,
       m.labels, m.metadata, m.model_id, m.create_time, m.updated_at, m.valid_from, m.valid_until, m.occur_time,
       m.superseded_by, m.revision, near.distance
  FROM ({nearest}) near JOIN memory.memories m ON m.tenant_id = $4 AND m.memory_id = near.memory_id
 ORDER BY near.distance
"""
_BARE_WALK = _BARE.format(
    nearest="""
SELECT memory_id, (embedding::halfvec(384)) <=> $3::vector::halfvec(384) AS distance FROM memory.memory_vectors_1
 WHERE agent_id = $1 AND user_id = $2 ORDER BY (embedding::halfvec(384)) <=> $3::vector::halfvec(384) LIMIT 10
"""
)
_BARE_EXACT = _BARE.format(
    nearest="""
SELECT memory_id, embedding <=> $3 AS distance FROM memory.memory_vectors_1
 WHERE agent_id = $1 AND user_id = $2 AND tenant_id = $4 ORDER BY embedding <=> $3 LIMIT 10
"""
)


class _Scope:
    """Memories of one scope, and what is asked of them."""

    def __init__(self, count: int, seed: int) -> None:
        themes = Themes(_DIMENSION, seed)
        self.agent_id = uuid4()
        self.ids = [uuid7() for _ in range(count)]
        self.vectors = themes.vectors(count)
        self.queries = themes.vectors(_QUERIES)
        self.nearest = [
            {str(self.ids[int(place)]) for place in np.argpartition(-(self.vectors @ query), _LIMIT)[:_LIMIT]}
            for query in self.queries
        ]


async def measure(options: Options) -> list[Figure]:
    """Measures the rate at 4 callers in the large scope, and the latency of one in the small."""
    tenant_id = uuid7()
    large = _Scope(_SHORT_LARGE if options.short else _LARGE, 1)
    small = _Scope(_SHORT_SMALL if options.short else _SMALL, 2)
    async with AsyncExitStack() as running:
        served = await running.enter_async_context(cluster(durable=True))
        database = await served.clone()
        await _load(database, tenant_id, (large, small))
        pool = await asyncpg.create_pool(
            database.admin_dsn,
            min_size=_CONCURRENCY,
            max_size=_CONCURRENCY,
            init=prepare,
            reset=_keep_as_it_is,
            server_settings={"jit": "off"},
        )
        running.push_async_callback(pool.close)
        candidates, bare_recall = await _candidates(pool, large, tenant_id)
        starting = serving(
            database, "memory", pool_min_size="4", pool_max_size="4", memory_walk_candidates=str(candidates)
        )
        services = await running.enter_async_context(starting)
        channel = await running.enter_async_context(grpc.aio.insecure_channel(services["memory"].address))
        client = _Client(channel, tenant_id)
        recall = await client.recall(large, memory_pb2.SEARCH_PLAN_HNSW)
        await client.recall(small, memory_pb2.SEARCH_PLAN_EXACT)
        variables = session_stage.environ(database, tenant_id) | {
            "MINION_BENCH_OWNER": database.admin_dsn,
            "MINION_BENCH_AGENT": str(large.agent_id),
            "MINION_BENCH_CANDIDATES": str(candidates),
        }
        bare_call = await running.enter_async_context(
            session_stage.serving("-m", "benchmarks.f06_search", environ=variables)
        )
        bare_channel = await running.enter_async_context(grpc.aio.insecure_channel(bare_call.address))
        async with pool.acquire() as connection:
            postmaster = psutil.Process(await connection.fetchval("SELECT pg_backend_pid()")).ppid()

        async def compared(ours: Operation, bare: Operation, concurrency: int, server: int) -> Comparison:
            for warmed in (ours, bare):
                await run_slice(warmed, seconds=2, concurrency=concurrency, pids=())
            # Pools have grown by now, and all backends are there.
            backends = process_tree(postmaster)
            return await interleave(
                ours,
                bare,
                rounds=2 * options.rounds,
                concurrency=concurrency,
                pids=[server, *backends],
                yardstick_pids=backends,
            )

        service, walk = services["memory"].pid, _bare(pool, _BARE_WALK, large, tenant_id)
        rates = await compared(client.searching(large), walk, _CONCURRENCY, service)
        calling = _Client(bare_channel, tenant_id).searching(large)
        calls = await compared(calling, walk, _CONCURRENCY, bare_call.pid)
        times = await compared(client.searching(small), _bare(pool, _BARE_EXACT, small, tenant_id), 1, service)
    yardstick = f"the bare walk of the index (ef_search {candidates}, recall {bare_recall:.3f})"
    return [
        _rate(rates, f"search of a large scope, {_CONCURRENCY} callers, recall {recall:.3f}", yardstick, recall),
        _rate(calls, f"a bare gRPC call with the walk, {_CONCURRENCY} callers", yardstick, None),
        _latency(times, len(small.ids)),
    ]


def _rate(compared: Comparison, name: str, yardstick_name: str, recall: float | None) -> Figure:
    value, yardstick, ratio = compared.value(lambda part: part.rate)
    cpu, _, _ = compared.value(lambda part: part.cpu_per_operation)
    return Figure(
        id=ID,
        name=name,
        value=value,
        unit="req/s",
        yardstick=yardstick_name,
        yardstick_value=yardstick,
        ratio=ratio,
        goal="" if recall is None else f"ratio >= {_RATE_GOAL}",
        ok=None if recall is None else ratio >= _RATE_GOAL and recall >= _RECALL_GOAL,
        cpu_us_per_op=cpu * 1e6,
        runs=len(compared.ours),
    )


def _latency(compared: Comparison, count: int) -> Figure:
    value, yardstick, ratio = compared.value(lambda part: part.p50 * 1e3)
    cpu, _, _ = compared.value(lambda part: part.cpu_per_operation)
    return Figure(
        id=ID,
        name=f"search that compares {count:,}, 1 caller: p50",
        value=value,
        unit="ms",
        yardstick="the bare statement",
        yardstick_value=yardstick,
        ratio=ratio,
        goal=f"ratio <= {_LATENCY_GOAL:g}",
        ok=ratio <= _LATENCY_GOAL,
        cpu_us_per_op=cpu * 1e6,
        runs=len(compared.ours),
    )


class _Client:
    """A caller that sends and takes bytes, so that what is measured is the service."""

    def __init__(self, channel: grpc.aio.Channel, tenant_id: UUID) -> None:
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)
        self._tokens = ServiceTokens(SERVICE_KEY, "gateway")
        self._tenant_id = tenant_id

    def searching(self, scope: _Scope) -> Operation:
        """Gives the search of a scope, each time for another vector."""
        requests = itertools.cycle(_requests(scope))

        async def operation() -> object:
            return await self._search(next(requests))

        return operation

    async def recall(self, scope: _Scope, plan: int) -> float:
        """Gives the share of the nearest that searches find; makes sure that they go as planned."""
        right = 0
        for request, nearest in zip(_requests(scope), scope.nearest, strict=True):
            found = pb.SearchMemoriesResponse.FromString(await self._search(request))
            if found.plan != plan or len(found.hits) != _LIMIT:
                raise RuntimeError(f"a search went otherwise than planned: {found.plan}, {len(found.hits)} hits")
            right += len({hit.memory.memory_id for hit in found.hits} & nearest)
        return right / (len(scope.queries) * _LIMIT)

    async def _search(self, request: bytes) -> bytes:
        metadata = (("authorization", f"Bearer {self._tokens.mint(self._tenant_id)}"),)
        return await self._call(request, metadata=metadata)


def _requests(scope: _Scope) -> Sequence[bytes]:
    return [
        pb.SearchMemoriesRequest(
            agent_id=str(scope.agent_id),
            user_id="ann",
            vector=memory_pb2.Embedding(model=_MODEL, values=query.tolist()),
            limit=_LIMIT,
        ).SerializeToString()
        for query in scope.queries
    ]


def _bare(pool: Any, statement: str, scope: _Scope, tenant_id: UUID) -> Operation:
    vectors = itertools.cycle([Vector(query) for query in scope.queries])

    async def operation() -> object:
        return await pool.fetch(statement, scope.agent_id, "ann", next(vectors), tenant_id)

    return operation


async def _keep_as_it_is(connection: object) -> None:
    """Leaves a connection's settings alone, at the cost of no round trip."""


async def _candidates(pool: Any, scope: _Scope, tenant_id: UUID) -> tuple[int, float]:
    """Sets the least `ef_search` with which the bare statement finds enough; gives it with its recall."""
    connections = [await pool.acquire() for _ in range(_CONCURRENCY)]
    try:
        for candidates in _CANDIDATES:
            for connection in connections:
                await connection.execute(f"SET hnsw.ef_search = {candidates}")
            right = 0
            for query, nearest in zip(scope.queries, scope.nearest, strict=True):
                rows = await connections[0].fetch(_BARE_WALK, scope.agent_id, "ann", Vector(query), tenant_id)
                right += len({str(row["memory_id"]) for row in rows} & nearest)
            recall = right / (len(scope.queries) * _LIMIT)
            if recall >= _RECALL_GOAL:
                return candidates, recall
    finally:
        for connection in connections:
            await pool.release(connection)
    raise RuntimeError("the bare walk finds too few of the nearest")


async def _load(database: ClonedDatabase, tenant_id: UUID, scopes: Sequence[_Scope]) -> None:
    """Loads memories from behind, with the index made at the end: one by one it would take ten times as long."""
    admin = await asyncpg.connect(database.admin_dsn, server_settings={"maintenance_work_mem": "512MB"})
    try:
        await prepare(admin)
        made = await admin.fetchval("SELECT pg_get_indexdef('memory.memory_vectors_1_hnsw'::regclass)")
        await admin.execute("DROP INDEX memory.memory_vectors_1_hnsw")
        await admin.execute("ALTER TABLE memory.memories DISABLE TRIGGER USER")
        for scope in scopes:
            await admin.copy_records_to_table(
                "memories",
                schema_name="memory",
                columns=_COLUMNS,
                records=[
                    (tenant_id, id_, scope.agent_id, "ann", str(n), "fact", f"Fact {n}.", 0.5, 1.0, "user", 1)
                    for n, id_ in enumerate(scope.ids)
                ],
            )
            await admin.execute(
                "INSERT INTO memory.scope_counts (tenant_id, agent_id, user_id, fact_count) VALUES ($1, $2, 'ann', $3)",
                *(tenant_id, scope.agent_id, len(scope.ids)),
            )
            await admin.copy_records_to_table(
                "memory_vectors",
                schema_name="memory",
                records=[
                    (tenant_id, id_, 1, scope.agent_id, "ann", "fact", packed(array("f", vector.tobytes())))
                    for id_, vector in zip(scope.ids, scope.vectors, strict=True)
                ],
            )
        await admin.execute("ALTER TABLE memory.memories ENABLE TRIGGER USER")
        await admin.execute(made)
        await admin.execute("VACUUM ANALYZE memory.memories")
        await admin.execute("VACUUM ANALYZE memory.memory_vectors")
    finally:
        await admin.close()


async def _serve() -> None:
    """Answers searches with themselves, once the bare statement has walked to their vector."""
    agent_id, tenant_id = UUID(os.environ["MINION_BENCH_AGENT"]), UUID(os.environ["MINION_BENCH_TENANT"])
    async with asyncpg.create_pool(
        os.environ["MINION_BENCH_OWNER"],
        min_size=_CONCURRENCY,
        max_size=_CONCURRENCY,
        init=prepare,
        reset=_keep_as_it_is,
        server_settings={"jit": "off", "hnsw.ef_search": os.environ["MINION_BENCH_CANDIDATES"]},
    ) as pool:

        async def walk(request: bytes) -> None:
            values = pb.SearchMemoriesRequest.FromString(request).vector.values
            found = await pool.fetch(_BARE_WALK, agent_id, "ann", Vector(values[:]), tenant_id)
            assert len(found) == _LIMIT

        await serve_asked(_SERVICE, _RPC, walk)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=LOOP_FACTORY) as runner:
        runner.run(_serve())
