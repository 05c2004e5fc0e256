"""F4: AppendMessages through gRPC, against a bare call that bumps a sequence and inserts a row; and in a long session.

What any append must do is one CTE on two plain tables. It takes less than any gRPC call, so the yardstick is asked over
gRPC as well (see `bare_call`), by the same client with the same bytes; the CTE by asyncpg alone is reported beside it,
with no verdict. Ours is called as the gateway calls: a token, a run's step as the key; row-level security, all
interceptors.
"""

import asyncio
import os
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count, cycle
from uuid import UUID

import grpc
import psutil
import uvloop
from minion.session.v1 import message_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_postgres.driver import Pool
from uuid_utils.compat import uuid7

from benchmarks.bare_call import bare_pool, serve_bare
from benchmarks.figure import Comparison, Figure, Operation, Options, interleave, process_tree
from benchmarks.session_stage import Call, Process, SessionStage, environ, serving, session_stage

ID = "F4"
# The client is what the gateway is: a service's loop.
LOOP_FACTORY = uvloop.new_event_loop

_CONCURRENCY = 16
_LONG = 100_000
_RATE_GOAL, _LEAST_RATE = 0.5, 1_200.0
_SERVED, _ALONE = "a bare grpc.aio echo with the CTE", "the CTE by asyncpg, no gRPC"
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


@dataclass(frozen=True, slots=True)
class _Bare:
    """The bare append, as a call and alone; the process that serves the call, and those of Postgres."""

    call: Call
    statement: Operation
    server: Process
    postgres: list[int]


async def measure(options: Options) -> list[Figure]:
    """Measures the rate at 16 callers and the latency at 1 against the bare call, and a long session against a new."""
    long, rounds = (1_000 if options.short else _LONG), options.rounds
    async with session_stage() as stage, _bare(stage) as bare:
        sessions = [await stage.open_session() for _ in range(_CONCURRENCY)]
        call = stage.call("AppendMessages")
        many, one, served = _appends(call, sessions), _appends(call, sessions[:1]), _appends(bare.call, sessions)
        lengthy = _appends(call, [await stage.filled_session(long)])
        await stage.settle()
        pids, bare_pids = [stage.service.pid, *bare.postgres], [bare.server.pid, *bare.postgres]
        rates = await interleave(
            many, served, rounds=rounds, concurrency=_CONCURRENCY, pids=pids, yardstick_pids=bare_pids
        )
        alone = await interleave(many, bare.statement, rounds=rounds, concurrency=_CONCURRENCY, pids=pids)
        latencies = await interleave(one, served, rounds=rounds, pids=pids, yardstick_pids=bare_pids)
        latencies_alone = await interleave(one, bare.statement, rounds=rounds, pids=pids)
        lengths = await interleave(lengthy, one, rounds=rounds, pids=pids, yardstick_pids=pids)
    return [
        _rate(rates),
        _rate_alone(alone),
        _latency(latencies, "AppendMessages, p50 at 1 caller", _SERVED, 2.0),
        _latency(latencies_alone, "AppendMessages beside the CTE alone, p50 at 1 caller", _ALONE, None),
        _latency(lengths, f"AppendMessages to {long:,} messages, p50", "the same to a new session", 1.2),
    ]


def _appends(call: Call, sessions: list[UUID]) -> Operation:
    """Appends a message to each session in turn, each a new step of one run."""
    run_id, steps, places = str(uuid7()), count(1), cycle(str(session_id) for session_id in sessions)
    message = message_pb2.Message(role=message_pb2.MESSAGE_ROLE_USER, parts=[message_pb2.Part(text=_TEXT)])

    async def append() -> object:
        source = message_pb2.RunSource(run_id=run_id, step_sequence=next(steps))
        request = pb.AppendMessagesRequest(session_id=next(places), messages=[message], source=source)
        return await call(request.SerializeToString())

    return append


@asynccontextmanager
async def _bare(stage: SessionStage) -> AsyncIterator[_Bare]:
    """Makes the two plain tables, and runs the server of the bare call for a block."""
    dsn = stage.database.admin_dsn
    async with bare_pool(dsn) as pool:
        await pool.execute(_TABLES)
        places = [(uuid7(), uuid7()) for _ in range(_CONCURRENCY)]
        await pool.executemany("INSERT INTO bench.sessions (tenant_id, session_id) VALUES ($1, $2)", places)
        # A backend's parent is the postmaster, which has all the others.
        postmaster = psutil.Process(await pool.fetchval("SELECT pg_backend_pid()")).parent()
        assert postmaster is not None
        variables = environ(stage.database, stage.tenant_id) | {"MINION_BENCH_OWNER": dsn}
        async with (
            serving("-m", "benchmarks.f04_append", environ=variables) as server,
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            call = stage.call("AppendMessages", channel)
            yield _Bare(call, await _statement(pool), server, process_tree(postmaster.pid))


async def _statement(pool: Pool) -> Operation:
    """Appends a row to each of the plain tables' sessions in turn."""
    turns = cycle(await pool.fetch("SELECT tenant_id, session_id FROM bench.sessions"))

    async def append() -> None:
        assert await pool.fetchrow(_BARE, *next(turns), _PARTS) is not None

    return append


async def _serve() -> None:
    async with bare_pool(os.environ["MINION_BENCH_OWNER"]) as pool:
        await serve_bare("AppendMessages", await _statement(pool))


def _rate(compared: Comparison) -> Figure:
    value, yardstick, ratio = compared.value(lambda part: part.rate)
    return Figure(
        id=ID,
        name=f"AppendMessages, {_CONCURRENCY} callers",
        value=value,
        unit="req/s",
        yardstick=_SERVED,
        yardstick_value=yardstick,
        ratio=ratio,
        goal=f"ratio >= {_RATE_GOAL}",
        ok=ratio >= _RATE_GOAL,
        cpu_us_per_op=_cpu(compared),
        runs=len(compared.ours),
    )


def _rate_alone(compared: Comparison) -> Figure:
    value, yardstick, ratio = compared.value(lambda part: part.rate)
    return Figure(
        id=ID,
        name=f"AppendMessages beside the CTE alone, {_CONCURRENCY} callers",
        value=value,
        unit="req/s",
        yardstick=f"absolute; beside it {_ALONE}",
        yardstick_value=yardstick,
        ratio=ratio,
        goal=f"value >= {_LEAST_RATE:,.0f}",
        ok=value >= _LEAST_RATE,
        cpu_us_per_op=_cpu(compared),
        runs=len(compared.ours),
    )


def _latency(compared: Comparison, name: str, yardstick: str, goal: float | None) -> Figure:
    value, bare, ratio = compared.value(lambda part: part.p50 * 1e3)
    return Figure(
        id=ID,
        name=name,
        value=value,
        unit="ms",
        yardstick=yardstick,
        yardstick_value=bare,
        ratio=ratio,
        goal="" if goal is None else f"ratio <= {goal:g}",
        ok=None if goal is None else ratio <= goal,
        cpu_us_per_op=_cpu(compared),
        runs=len(compared.ours),
    )


def _cpu(compared: Comparison) -> float:
    return statistics.median(part.cpu_per_operation for part in compared.ours) * 1e6


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=LOOP_FACTORY) as runner:
        runner.run(_serve())
