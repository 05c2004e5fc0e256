"""The session service in a process of its own, as it is deployed, for the benchmarks that call it."""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import asyncpg
import grpc
import orjson
from minion.session.v1 import session_service_pb2 as pb
from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_auth import ServiceTokens
from minion_testing.postgres import ClonedDatabase, cluster
from uuid_utils.compat import uuid7

SERVICE = "minion.session.v1.SessionService"
SERVICE_KEY = "the service key of benchmarks, long enough to be one"
POOL = {"pool_min_size": 16, "pool_max_size": 16}

Call = Callable[[bytes], Awaitable[bytes]]

_FILL = """
INSERT INTO session.messages (tenant_id, session_id, sequence, create_time, token_count, byte_count, role, author,
                              parts)
SELECT $1, $2, number, now(), 50, $4::int + 60, CASE number % 2 WHEN 1 THEN 'user' ELSE 'assistant' END, 'ada',
       jsonb_build_array(jsonb_build_object('text', repeat('wörter ', $4::int / 8)))
  FROM generate_series(1, $3::int) AS number
"""


@dataclass(frozen=True, slots=True)
class Process:
    """A running server: where it answers and which process it is."""

    address: str
    pid: int


@dataclass(frozen=True, slots=True)
class SessionStage:
    """A running session service, its database, and a tenant."""

    database: ClonedDatabase
    service: Process
    tenant_id: UUID
    credential: ServiceTokens
    channel: grpc.aio.Channel

    def call(self, method: str, channel: grpc.aio.Channel | None = None) -> Call:
        """Gives an RPC as the gateway calls it: bytes in, bytes out, so that the client costs little.

        `channel` leads to another server than the service.
        """
        multi: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        multi = (channel or self.channel).unary_unary(f"/{SERVICE}/{method}")

        async def call(request: bytes) -> bytes:
            metadata = (("authorization", f"Bearer {self.credential.mint(self.tenant_id)}"),)
            return await multi(request, metadata=metadata)

        return call

    async def open_session(self) -> UUID:
        """Opens a session."""
        return await open_session(self.service.address, self.credential.mint(self.tenant_id))

    async def filled_session(self, count: int, content_bytes: int = 400) -> UUID:
        """Opens a session and puts messages into it, behind the service's back."""
        session_id = await self.open_session()
        connection = await asyncpg.connect(self.database.dsn("session", "owner"))
        try:
            await connection.execute(_FILL, self.tenant_id, session_id, count, content_bytes)
            await connection.execute(
                "UPDATE session.sessions SET last_sequence = $3 WHERE tenant_id = $1 AND session_id = $2",
                self.tenant_id,
                session_id,
                count,
            )
        finally:
            await connection.close()
        return session_id

    async def settle(self) -> None:
        """Gives the planner its statistics, and leaves no vacuum to run amid the measuring."""
        connection = await asyncpg.connect(self.database.dsn("session", "owner"))
        try:
            await connection.execute("VACUUM ANALYZE session.messages")
            await connection.execute("VACUUM ANALYZE session.sessions")
        finally:
            await connection.close()


@asynccontextmanager
async def session_stage() -> AsyncIterator[SessionStage]:
    """Runs the service on a durable database of its own for a block."""
    tenant_id = uuid7()
    async with AsyncExitStack() as running:
        database = await (await running.enter_async_context(cluster(durable=True))).clone()
        service = await running.enter_async_context(
            serving("-m", "minion_session", environ=environ(database, tenant_id))
        )
        channel = await running.enter_async_context(grpc.aio.insecure_channel(service.address))
        yield SessionStage(database, service, tenant_id, ServiceTokens(SERVICE_KEY, "gateway"), channel)


@asynccontextmanager
async def serving(*command: str, environ: Mapping[str, str]) -> AsyncIterator[Process]:
    """Runs a server for a block; its log goes to a file, as a deployment's goes somewhere."""
    with tempfile.TemporaryDirectory(prefix="minion-bench-") as place:
        log = Path(place) / "log"
        with log.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, env=environ, stdout=sink, stderr=asyncio.subprocess.STDOUT
            )
        try:
            yield Process(await _address(log, process), process.pid)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


def environ(database: ClonedDatabase, tenant_id: UUID) -> dict[str, str]:
    """The variables of a server on a database."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MINION_", "OTEL_"))}
    return inherited | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "MINION_DATABASE_URL": database.dsn("session"),
        "MINION_AUTH_MODE": "required",
        "MINION_SERVICE_KEY": SERVICE_KEY,
        "MINION_SESSION_PORT": "0",
        "MINION_SESSION_OPERATIONS_PORT": "0",
        "MINION_BENCH_TENANT": str(tenant_id),
        "MINION_BENCH_OWNER": database.dsn("session", "owner"),
        **{f"MINION_{name.upper()}": str(value) for name, value in POOL.items()},
    }


async def open_session(address: str, credential: str) -> UUID:
    """Opens a session."""
    async with grpc.aio.insecure_channel(address) as channel:
        response = await SessionServiceStub(channel).CreateSession(
            pb.CreateSessionRequest(agent_id=str(uuid7()), user_id="ada", display_name="A chat"),
            metadata=(("authorization", f"Bearer {credential}"),),
        )
        return UUID(response.session.session_id)


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
