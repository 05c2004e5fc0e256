"""F7: StoreMemories with vectors given, in batches of 100, against the bare batch insert with its index.

The memory service is a process of its own, with identity, row-level security, revisions, counts, metrics and logs on.
The yardstick inserts the same rows, as arrays and in one statement, into tables of the same columns and indexes, the
index of the vectors included, with nothing else about them: no tenant check, no lookup by key, no trigger, no
row-level security.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import grpc
import numpy as np
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_auth import ServiceTokens
from minion_memory.memories.store import prepare
from minion_testing.postgres import cluster
from minion_testing.serving import SERVICE_KEY
from pgvector import Vector
from uuid_utils.compat import uuid7

from benchmarks.figure import Comparison, Figure, Operation, Options, interleave
from benchmarks.serving import serving

ID = "F7"

_METHOD = "/minion.memory.v1.MemoryService/StoreMemories"
_MODEL, _DIMENSION = "local/all-minilm-l6-v2", 384
_BATCH, _USERS = 100, 50
_SECONDS = 2.0
_CONTENT = "Ann drinks green tea in the morning, and never coffee after noon. "
_GOAL = 0.5
_TABLES = """
CREATE SCHEMA bare;
CREATE TABLE bare.memories (LIKE memory.memories INCLUDING ALL);
CREATE TABLE bare.memory_vectors (LIKE memory.memory_vectors_1 INCLUDING ALL);
"""
_MEMORIES = """
INSERT INTO bare.memories (tenant_id, memory_id, agent_id, user_id, key, type, content, speaker, importance, confidence,
                           trust, labels, metadata, model_id, valid_from, occur_time)
SELECT $1, id, $2, of_user, key, 'fact', content, 'Ann', 0.5, 1, 'user', '{}', '{}', 1, now(), now()
  FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[]) AS given (id, of_user, key, content)
"""
_BARE = f"""
WITH kept AS ({_MEMORIES})
INSERT INTO bare.memory_vectors (tenant_id, memory_id, model_id, agent_id, user_id, type, embedding)
SELECT $1, id, 1, $2, of_user, 'fact', embedding
  FROM unnest($3::uuid[], $4::text[], $7::vector[]) AS given (id, of_user, embedding)
"""  # noqa: S608 - texts of ours
_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = $1"


class _Batches:
    """Memories that nobody has stored yet, a hundred at a time."""

    def __init__(self, seed: int) -> None:
        self.agent_id = uuid4()
        self._source = np.random.default_rng(seed)
        self._numbers = itertools.count()

    def __iter__(self) -> Iterator[tuple[list[UUID], list[str], list[str], list[str], "np.ndarray[Any, Any]"]]:
        while True:
            numbers = [next(self._numbers) for _ in range(_BATCH)]
            vectors = self._source.normal(size=(_BATCH, _DIMENSION))
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            yield (
                [uuid7() for _ in numbers],
                [f"user {number % _USERS}" for number in numbers],
                [f"key {number}" for number in numbers],
                [f"{_CONTENT}{number} {'tea ' * (number % 40)}" for number in numbers],
                vectors.astype(np.float32),
            )


async def measure(options: Options) -> list[Figure]:
    """Measures the memories that one caller stores in a second."""
    tenant_id = uuid7()
    filled = 5 if options.short else 50
    async with AsyncExitStack() as running:
        running_cluster = await running.enter_async_context(cluster(durable=True))
        database = await running_cluster.clone()
        admin = await asyncpg.connect(database.admin_dsn)
        running.push_async_callback(admin.close)
        await admin.execute(_TABLES)
        bare = await asyncpg.connect(database.admin_dsn)
        running.push_async_callback(bare.close)
        await prepare(bare)
        service = (await running.enter_async_context(serving(database, "memory")))["memory"]
        channel = await running.enter_async_context(grpc.aio.insecure_channel(service.address))
        ours = _storing(channel, ServiceTokens(SERVICE_KEY, "gateway"), tenant_id, _Batches(1))
        yardstick = _inserting(bare, tenant_id, _Batches(2))
        # Both tables and indexes begin with as much in them.
        for _ in range(filled):
            await ours()
            await yardstick()
        await admin.execute("VACUUM ANALYZE")
        compared = await interleave(
            ours,
            yardstick,
            rounds=options.rounds,
            seconds=_SECONDS,
            pids=[service.pid, *[row["pid"] for row in await admin.fetch(_BACKENDS, "minion-memory")]],
            yardstick_pids=[await bare.fetchval("SELECT pg_backend_pid()")],
        )
    return [_figure(compared)]


def _figure(compared: Comparison) -> Figure:
    value, yardstick, ratio = compared.value(lambda part: part.rate * _BATCH)
    cpu, _, _ = compared.value(lambda part: part.cpu_per_operation)
    return Figure(
        id=ID,
        name=f"StoreMemories, vectors given, batches of {_BATCH}",
        value=value,
        unit="rows/s",
        yardstick="one bare INSERT of the batch into the same tables and indexes",
        yardstick_value=yardstick,
        ratio=ratio,
        goal=f"ratio >= {_GOAL}",
        ok=ratio >= _GOAL,
        cpu_us_per_op=cpu / _BATCH * 1e6,
        runs=len(compared.ours),
    )


def _storing(channel: grpc.aio.Channel, credential: ServiceTokens, tenant_id: UUID, batches: _Batches) -> Operation:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)
    # Made ahead, so that what is measured is the service, not its caller.
    ready = [_request(batches.agent_id, batch) for batch in itertools.islice(batches, 64)]
    more = iter(batches)

    async def operation() -> object:
        request = ready.pop() if ready else _request(batches.agent_id, next(more))
        return await call(request, metadata=(("authorization", f"Bearer {credential.mint(tenant_id)}"),))

    return operation


def _request(agent_id: UUID, batch: Sequence[Any]) -> bytes:
    return pb.StoreMemoriesRequest(
        memories=[
            pb.NewMemory(
                memory=memory_pb2.Memory(
                    memory_id=str(memory_id),
                    agent_id=str(agent_id),
                    user_id=user_id,
                    key=key,
                    type=memory_pb2.MEMORY_TYPE_FACT,
                    content=content,
                    speaker="Ann",
                    trust=memory_pb2.MEMORY_TRUST_USER,
                ),
                embedding=memory_pb2.Embedding(model=_MODEL, values=vector.tolist()),
            )
            for memory_id, user_id, key, content, vector in zip(*batch, strict=True)
        ],
        request_id=str(uuid7()),
    ).SerializeToString()


def _inserting(connection: Any, tenant_id: UUID, batches: _Batches) -> Operation:
    more = iter(batches)

    async def operation() -> object:
        ids, users, keys, contents, vectors = next(more)
        return await connection.execute(
            _BARE, tenant_id, batches.agent_id, ids, users, keys, contents, [Vector(vector) for vector in vectors]
        )

    return operation
