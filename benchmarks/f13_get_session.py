"""F13: GetSession through all interceptors, against a bare echo that SELECTs the same row.

Three servers, each in a process of its own and called in turn by the same client with the same bytes: the session
service as it is deployed; the yardstick; and the service's own servicer with no interceptor, which tells what the
interceptors cost in CPU of the serving process. The commands below are those processes: `python -m
benchmarks.f13_get_session bare` and `… plain`, on a database given by the environment; each prints its port.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import UUID

import asyncpg
import grpc
import orjson
import uvloop
from minion.session.v1 import session_service_pb2 as pb
from minion.session.v1.session_service_pb2_grpc import SessionServiceStub, add_SessionServiceServicer_to_server
from minion_auth import CallerKind, Identity, ServiceTokens
from minion_auth.identity import enter
from minion_postgres import Database
from minion_session.servicer import SessionServicer
from minion_session.sessions.service import Sessions
from minion_session.sessions.store import SessionStore
from minion_session.settings import SessionSettings
from minion_telemetry import Telemetry
from minion_testing.postgres import ClonedDatabase, cluster
from uuid_utils.compat import uuid7

from benchmarks.figure import Comparison, Figure, Operation, Options, interleave

ID = "F13"

_METHOD = "/minion.session.v1.SessionService/GetSession"
_SELECT = """
SELECT session_id, agent_id, user_id, display_name, last_sequence, metadata, create_time, updated_at, expire_time,
       close_time, hold_until
  FROM session.sessions WHERE tenant_id = $1 AND session_id = $2
"""
_CONCURRENCY = 16
_RATE_GOAL, _CPU_GOAL = 0.5, 300.0
_SERVICE_KEY = "the service key of benchmarks, long enough to be one"
_POOL = {"pool_min_size": 16, "pool_max_size": 16}


async def measure(options: Options) -> list[Figure]:
    """Measures the rate at 16 callers, and the CPU that the interceptors add to a call."""
    tenant_id = uuid7()
    async with AsyncExitStack() as running:
        running_cluster = await running.enter_async_context(cluster(durable=True))
        database = await running_cluster.clone()
        environ = _environ(database, tenant_id)
        service = await running.enter_async_context(_serving("-m", "minion_session", environ=environ))
        credential = ServiceTokens(_SERVICE_KEY, "gateway")
        session_id = await _open(service.address, credential.mint(tenant_id))
        environ["MINION_BENCH_SESSION"] = str(session_id)
        this = ("-m", "benchmarks.f13_get_session")
        bare = await running.enter_async_context(_serving(*this, "bare", environ=environ))
        plain = await running.enter_async_context(_serving(*this, "plain", environ=environ))
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


class _Process:
    """A running server: where it answers and which process it is."""

    def __init__(self, address: str, pid: int) -> None:
        self.address = address
        self.pid = pid


@asynccontextmanager
async def _serving(*command: str, environ: Mapping[str, str]) -> AsyncIterator[_Process]:
    """Runs a server for a block; its log goes to a file, as a deployment's goes somewhere."""
    with tempfile.TemporaryDirectory(prefix="minion-bench-") as place:
        log = Path(place) / "log"
        with log.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, env=environ, stdout=sink, stderr=asyncio.subprocess.STDOUT
            )
        try:
            yield _Process(await _address(log, process), process.pid)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _address(log: Path, process: asyncio.subprocess.Process) -> str:
    async with asyncio.timeout(30):
        while process.returncode is None:
            for line in _read(log).splitlines():
                if line.startswith(b"{") and (logged := orjson.loads(line)).get("event") == "serving":
                    return str(logged["address"])
            await asyncio.sleep(0.05)
    raise RuntimeError(f"the server did not start: {_read(log).decode()}")


def _read(log: Path) -> bytes:
    return log.read_bytes()


def _environ(database: ClonedDatabase, tenant_id: UUID) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MINION_", "OTEL_"))}
    return inherited | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "MINION_DATABASE_URL": database.dsn("session"),
        "MINION_AUTH_MODE": "required",
        "MINION_SERVICE_KEY": _SERVICE_KEY,
        "MINION_SESSION_PORT": "0",
        "MINION_SESSION_OPERATIONS_PORT": "0",
        "MINION_BENCH_TENANT": str(tenant_id),
        "MINION_BENCH_OWNER": database.dsn("session", "owner"),
        **{f"MINION_{name.upper()}": str(value) for name, value in _POOL.items()},
    }


async def _open(address: str, credential: str) -> UUID:
    async with grpc.aio.insecure_channel(address) as channel:
        response = await SessionServiceStub(channel).CreateSession(
            pb.CreateSessionRequest(agent_id=str(uuid7()), user_id="ada", display_name="A chat"),
            metadata=(("authorization", f"Bearer {credential}"),),
        )
        return UUID(response.session.session_id)


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
    pool = await asyncpg.create_pool(
        os.environ["MINION_BENCH_OWNER"], min_size=_POOL["pool_min_size"], max_size=_POOL["pool_max_size"]
    )

    async def echo(request: bytes, context: object) -> bytes:
        row = await pool.fetchrow(_SELECT, tenant_id, session_id)
        assert row is not None
        return request

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("minion.session.v1.SessionService", {"GetSession": handler})]
    )
    await _run(server)


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
        await _run(server)


async def _run(server: grpc.aio.Server) -> None:
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(orjson.dumps({"event": "serving", "address": f"127.0.0.1:{port}"}).decode(), flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run({"bare": _serve_bare, "plain": _serve_plain}[sys.argv[1]]())
