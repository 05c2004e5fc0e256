"""F4: AppendMessages through gRPC, against the bare statement that bumps a sequence and inserts a row.

The yardstick is what any append must do: one CTE on two plain tables, called by asyncpg. Ours comes from a client as
the gateway is one: a token, a run's step as the key, row-level security, all interceptors.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count, cycle
from uuid import UUID

import asyncpg
import psutil
import uvloop
from minion.session.v1 import message_pb2
from minion.session.v1 import session_service_pb2 as pb
from uuid_utils.compat import uuid7

from benchmarks.figure import Comparison, Figure, Operation, Options, interleave, process_tree
from benchmarks.session_stage import POOL, SessionStage, session_stage

ID = "F4"
# The client is what the gateway is: a service's loop.
LOOP_FACTORY = uvloop.new_event_loop

_CONCURRENCY = 16
_LONG = 100_000
_TEXT = "What was said, in a sentence or two of no great length. " * 8
_PARTS = f'[{{"text": "{_TEXT}"}}]'
_TABLES = """
CREATE SCHEMA bench;
CREATE TABLE bench.sessions (tenant_id uuid, session_id uuid, last_sequence bigint NOT NULL DEFAULT 0,
                             PRIMARY KEY (tenant_id, session_id)) WITH (fillfactor = 70);
CREATE TABLE bench.messages (tenant_id uuid, session_id uuid, sequence bigint, role text NOT NULL, parts jsonb NOT NULL,
                             create_time timestamptz NOT NULL DEFAULT now(),
                             PRIMARY KEY (tenant_id, session_id, sequence));
"""
_BARE = """
WITH bumped AS (
    UPDATE bench.sessions SET last_sequence = last_sequence + 1 WHERE tenant_id = $1 AND session_id = $2
    RETURNING last_sequence
)
INSERT INTO bench.messages (tenant_id, session_id, sequence, role, parts)
SELECT $1, $2, last_sequence, 'user', $3 FROM bumped RETURNING sequence, create_time
"""


async def measure(options: Options) -> list[Figure]:
    """Measures the rate at 16 callers and the latency at 1 against the bare CTE, and a long session against a new."""
    long = 1_000 if options.short else _LONG
    async with session_stage() as stage, _bare(stage) as (bare, postgres_pids):
        sessions = [await stage.open_session() for _ in range(_CONCURRENCY)]
        many, one = _appends(stage, sessions), _appends(stage, sessions[:1])
        lengthy = _appends(stage, [await stage.filled_session(long)])
        await stage.settle()
        pids = [stage.service.pid, *postgres_pids]
        rates = await interleave(
            many, bare, rounds=options.rounds, concurrency=_CONCURRENCY, pids=pids, yardstick_pids=postgres_pids
        )
        latencies = await interleave(one, bare, rounds=options.rounds, pids=pids, yardstick_pids=postgres_pids)
        lengths = await interleave(lengthy, one, rounds=options.rounds, pids=pids, yardstick_pids=pids)
    return [_rate(rates), _latency(latencies), _flat(lengths, long)]


def _appends(stage: SessionStage, sessions: list[UUID]) -> Operation:
    """Appends a message to each session in turn, each a new step of one run."""
    call = stage.call("AppendMessages")
    run_id, steps, places = str(uuid7()), count(1), cycle(str(session_id) for session_id in sessions)
    message = message_pb2.Message(role=message_pb2.MESSAGE_ROLE_USER, parts=[message_pb2.Part(text=_TEXT)])

    async def append() -> object:
        source = message_pb2.RunSource(run_id=run_id, step_sequence=next(steps))
        request = pb.AppendMessagesRequest(session_id=next(places), messages=[message], source=source)
        return await call(request.SerializeToString())

    return append


@asynccontextmanager
async def _bare(stage: SessionStage) -> AsyncIterator[tuple[Operation, list[int]]]:
    """The bare append, and the processes of Postgres."""
    pool = await asyncpg.create_pool(
        stage.database.admin_dsn, min_size=POOL["pool_min_size"], max_size=POOL["pool_max_size"]
    )
    try:
        await pool.execute(_TABLES)
        places = [(uuid7(), uuid7()) for _ in range(_CONCURRENCY)]
        await pool.executemany("INSERT INTO bench.sessions (tenant_id, session_id) VALUES ($1, $2)", places)
        turns = cycle(places)

        async def append() -> object:
            row = await pool.fetchrow(_BARE, *next(turns), _PARTS)
            assert row is not None
            return row

        # A backend's parent is the postmaster, which has all the others.
        backend = await pool.fetchval("SELECT pg_backend_pid()")
        yield append, process_tree(_parent(backend))
    finally:
        await pool.close()


def _parent(pid: int) -> int:
    parent = psutil.Process(pid).parent()
    assert parent is not None
    return parent.pid


def _rate(compared: Comparison) -> Figure:
    value, yardstick, ratio = compared.value(lambda part: part.rate)
    cpu, _, _ = compared.value(lambda part: part.cpu_per_operation)
    return Figure(
        id=ID,
        name=f"AppendMessages, {_CONCURRENCY} callers",
        value=value,
        unit="req/s",
        yardstick="the bare CTE by asyncpg",
        yardstick_value=yardstick,
        ratio=ratio,
        goal="ratio >= 1/3",
        ok=ratio >= 1 / 3,
        cpu_us_per_op=cpu * 1e6,
        runs=len(compared.ours),
    )


def _latency(compared: Comparison) -> Figure:
    value, yardstick, ratio = compared.value(lambda part: part.p50 * 1e3)
    cpu, _, _ = compared.value(lambda part: part.cpu_per_operation)
    return Figure(
        id=ID,
        name="AppendMessages, p50 at 1 caller",
        value=value,
        unit="ms",
        yardstick="the bare CTE by asyncpg",
        yardstick_value=yardstick,
        ratio=ratio,
        goal="ratio <= 3",
        ok=ratio <= 3,
        cpu_us_per_op=cpu * 1e6,
        runs=len(compared.ours),
    )


def _flat(compared: Comparison, long: int) -> Figure:
    value, yardstick, ratio = compared.value(lambda part: part.p50 * 1e3)
    cpu, _, _ = compared.value(lambda part: part.cpu_per_operation)
    return Figure(
        id=ID,
        name=f"AppendMessages to {long:,} messages, p50",
        value=value,
        unit="ms",
        yardstick="the same to a new session",
        yardstick_value=yardstick,
        ratio=ratio,
        goal="ratio <= 1.2",
        ok=ratio <= 1.2,
        cpu_us_per_op=cpu * 1e6,
        runs=len(compared.ours),
    )
