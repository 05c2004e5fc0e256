"""F5: GetContext of 50 messages, against the bare SELECT of the same rows; and in a long session.

A SELECT of 50 rows takes less than any gRPC call, so the yardstick is asked over gRPC as well: an echo with no
interceptor that runs the SELECT, in a process of its own (`python -m benchmarks.f05_context`, on a database given by
the environment). The SELECT by asyncpg alone is reported beside it, with no verdict.
"""

import asyncio
import os
import statistics
from uuid import UUID

import asyncpg
import grpc
import uvloop
from minion.session.v1 import session_service_pb2 as pb

from benchmarks.bare_call import bare_pool, serve_bare
from benchmarks.figure import Comparison, Figure, Operation, Options, interleave
from benchmarks.session_stage import SERVICE, SessionStage, environ, serving, session_stage

ID = "F5"

_SHOWN = 50
_SHORT, _LONG = 200, 100_000
_SELECT = """
SELECT sequence, role, author, parts, token_count, run_id, metadata, create_time
  FROM session.messages WHERE tenant_id = $1 AND session_id = $2 ORDER BY sequence DESC LIMIT 50
"""


async def measure(options: Options) -> list[Figure]:
    """Measures a context against the bare SELECT, and the context of a long session against a short one's."""
    long = 5_000 if options.short else _LONG
    async with session_stage() as stage:
        short_id, long_id = await stage.filled_session(_SHORT), await stage.filled_session(long)
        await stage.settle()
        connection = await asyncpg.connect(stage.database.dsn("session", "owner"))
        variables = environ(stage.database, stage.tenant_id) | {"MINION_BENCH_SESSION": str(short_id)}
        async with (
            serving("-m", "benchmarks.f05_context", environ=variables) as echo,
            grpc.aio.insecure_channel(echo.address) as channel,
        ):
            asked: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/GetContext")
            context = _gets(stage, short_id)

            async def over_grpc() -> object:
                return await asked(b"")

            async def bare() -> object:
                return await connection.fetch(_SELECT, stage.tenant_id, short_id)

            served = await interleave(
                context, over_grpc, rounds=options.rounds, pids=[stage.service.pid], yardstick_pids=[echo.pid]
            )
            alone = await interleave(context, bare, rounds=options.rounds, pids=[stage.service.pid])
            lengths = await interleave(_gets(stage, long_id), context, rounds=options.rounds, pids=[stage.service.pid])
        await connection.close()
    return [
        _figure(served, f"GetContext of {_SHOWN}, p50", "a bare grpc.aio echo with the SELECT of the rows", 3.0),
        _figure(alone, f"GetContext of {_SHOWN} beside the SELECT alone, p50", "the SELECT by asyncpg, no gRPC", None),
        _figure(lengths, f"GetContext of {_SHOWN} of {long:,}, p50", "the same of a short session", 1.2),
    ]


def _gets(stage: SessionStage, session_id: UUID) -> Operation:
    """Gets a context and decodes it."""
    call = stage.call("GetContext")
    content = pb.GetContextRequest(session_id=str(session_id)).SerializeToString()

    async def getting() -> object:
        response = pb.GetContextResponse.FromString(await call(content))
        assert len(response.messages) == _SHOWN
        return response

    return getting


def _figure(compared: Comparison, name: str, yardstick: str, goal: float | None) -> Figure:
    value, bare, ratio = compared.value(lambda part: part.p50 * 1e3)
    cpu = statistics.median(part.cpu_per_operation for part in compared.ours)
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
        cpu_us_per_op=cpu * 1e6,
        runs=len(compared.ours),
    )


async def _serve() -> None:
    tenant_id, session_id = UUID(os.environ["MINION_BENCH_TENANT"]), UUID(os.environ["MINION_BENCH_SESSION"])

    async with bare_pool(os.environ["MINION_BENCH_OWNER"]) as pool:

        async def select() -> None:
            assert len(await pool.fetch(_SELECT, tenant_id, session_id)) == _SHOWN

        await serve_bare("GetContext", select)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
