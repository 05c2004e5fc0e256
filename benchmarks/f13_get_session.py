"""F13: GetSession through all interceptors, against a bare echo that SELECTs the same row.

Three servers, each in a process of its own and called in turn by the same client with the same bytes: the session
service as it is deployed; the yardstick; and the service's own servicer with no interceptor, which tells what the
interceptors cost in CPU of the serving process. The commands below are those processes: `python -m
benchmarks.f13_get_session bare` and `… plain`, on a database given by the environment; each prints its port.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import grpc
import uvloop
from minion.session.v1 import session_service_pb2 as pb
from minion.session.v1.session_service_pb2_grpc import add_SessionServiceServicer_to_server
from minion_auth import CallerKind, Identity, ServiceTokens
from minion_auth.identity import enter
from minion_postgres import Database
from minion_session.servicer import SessionServicer
from minion_session.sessions.service import Sessions
from minion_session.sessions.store import SessionStore
from minion_session.settings import SessionSettings
from minion_telemetry import Telemetry
from minion_testing.postgres import cluster
from uuid_utils.compat import uuid7

from benchmarks.bare_call import announce, bare_pool, serve_bare
from benchmarks.figure import Comparison, Figure, Operation, Options, interleave
from benchmarks.session_stage import SERVICE, SERVICE_KEY, environ, open_session, serving

ID = "F13"

_METHOD = f"/{SERVICE}/GetSession"
_SELECT = """
SELECT session_id, agent_id, user_id, display_name, last_sequence, metadata, create_time, updated_at, expire_time,
       close_time, hold_until
  FROM session.sessions WHERE tenant_id = $1 AND session_id = $2
"""
_CONCURRENCY = 16
_RATE_GOAL, _CPU_GOAL = 0.5, 300.0


async def measure(options: Options) -> list[Figure]:
    """Measures the rate at 16 callers, and the CPU that the interceptors add to a call."""
    tenant_id = uuid7()
    async with AsyncExitStack() as running:
        running_cluster = await running.enter_async_context(cluster(durable=True))
        database = await running_cluster.clone()
        variables = environ(database, tenant_id)
        service = await running.enter_async_context(serving("-m", "minion_session", environ=variables))
        credential = ServiceTokens(SERVICE_KEY, "gateway")
        session_id = await open_session(service.address, credential.mint(tenant_id))
        variables["MINION_BENCH_SESSION"] = str(session_id)
        this = ("-m", "benchmarks.f13_get_session")
        bare = await running.enter_async_context(serving(*this, "bare", environ=variables))
        plain = await running.enter_async_context(serving(*this, "plain", environ=variables))
        request = pb.GetSessionRequest(session_id=str(session_id)).SerializeToString()
        ours, yardstick, without = [
            await running.enter_async_context(_caller(one.address, request, credential, tenant_id))
            for one in (service, bare, plain)
        ]
        rates = await interleave(
            ours,
            yardstick,
            rounds=options.rounds,
            concurrency=_CONCURRENCY,
            pids=[service.pid],
            yardstick_pids=[bare.pid],
        )
        costs = await interleave(
            ours,
            without,
            rounds=options.rounds,
            concurrency=_CONCURRENCY,
            pids=[service.pid],
            yardstick_pids=[plain.pid],
        )
    return [_rate(rates), _cost(costs)]


def _rate(compared: Comparison) -> Figure:
    value, yardstick, ratio = compared.value(lambda part: part.rate)
    cpu, _, _ = compared.value(lambda part: part.cpu_per_operation)
    return Figure(
        id=ID,
        name=f"GetSession through all interceptors, {_CONCURRENCY} callers",
        value=value,
        unit="req/s",
        yardstick="a bare grpc.aio echo with one SELECT of the row",
        yardstick_value=yardstick,
        ratio=ratio,
        goal=f"ratio >= {_RATE_GOAL}",
        ok=ratio >= _RATE_GOAL,
        cpu_us_per_op=cpu * 1e6,
        runs=len(compared.ours),
    )


def _cost(compared: Comparison) -> Figure:
    added = sorted(
        (ours.cpu_per_operation - theirs.cpu_per_operation) * 1e6
        for ours, theirs in zip(compared.ours, compared.yardstick, strict=True)
    )
    median = added[len(added) // 2]
    cpu, without, _ = compared.value(lambda part: part.cpu_per_operation * 1e6)
    return Figure(
        id=ID,
        name="GetSession: CPU that all interceptors add to a call",
        value=median,
        unit="µs",
        yardstick="absolute; beside it the whole call's CPU with none",
        yardstick_value=without,
        ratio=None,
        goal=f"value <= {_CPU_GOAL:g} µs",
        ok=median <= _CPU_GOAL,
        cpu_us_per_op=cpu,
        runs=len(added),
    )


@asynccontextmanager
async def _caller(address: str, request: bytes, credential: ServiceTokens, tenant_id: UUID) -> AsyncIterator[Operation]:
    """Gives the call: bytes in, bytes out, so that the client costs the same whoever answers."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)

        async def operation() -> object:
            return await call(request, metadata=(("authorization", f"Bearer {credential.mint(tenant_id)}"),))

        yield operation


async def _serve_bare() -> None:
    tenant_id, session_id = UUID(os.environ["MINION_BENCH_TENANT"]), UUID(os.environ["MINION_BENCH_SESSION"])

    async with bare_pool(os.environ["MINION_BENCH_OWNER"]) as pool:

        async def select() -> None:
            assert await pool.fetchrow(_SELECT, tenant_id, session_id) is not None

        await serve_bare("GetSession", select)


class _Plain(SessionServicer):
    """The service's servicer for a caller that somebody else has checked."""

    identity: Identity

    async def GetSession(self, request: pb.GetSessionRequest, context: object) -> pb.GetSessionResponse:
        enter(self.identity)
        return await super().GetSession(request, context)  # type: ignore[arg-type]


async def _serve_plain() -> None:
    settings = SessionSettings.load()
    telemetry = Telemetry.start("session", settings)
    async with await Database.connect(
        settings.app_dsn, schema="session", settings=settings, telemetry=telemetry
    ) as database:
        # Of the nouns that GetSession needs alone.
        servicer = _Plain.__new__(_Plain)
        servicer._sessions = Sessions(SessionStore(database))
        servicer.identity = Identity(CallerKind.SERVICE, UUID(os.environ["MINION_BENCH_TENANT"]), "service:gateway")
        server = grpc.aio.server()
        add_SessionServiceServicer_to_server(servicer, server)
        await announce(server)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run({"bare": _serve_bare, "plain": _serve_plain}[sys.argv[1]]())
