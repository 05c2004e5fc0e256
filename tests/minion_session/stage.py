"""Serving the session service on a real port and a real database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_auth import ServiceTokens
from minion_grpc import Server, connect
from minion_session.__main__ import compose
from minion_session.settings import SessionSettings
from minion_telemetry import Telemetry
from minion_testing.postgres import ClonedDatabase

SERVICE_KEY = "a key that only the tests' services share"
OPERATOR_KEY = "the key of the operator that the tests have"
GATEWAY = ServiceTokens(SERVICE_KEY, "gateway")

if TYPE_CHECKING:
    # Of the type stubs alone.
    from minion.session.v1.session_service_pb2_grpc import SessionServiceAsyncStub

Stub: TypeAlias = "SessionServiceAsyncStub"


@dataclass(frozen=True, slots=True)
class Replica:
    """A running replica of the service."""

    server: Server
    telemetry: Telemetry

    @asynccontextmanager
    async def stub(self, credential: str) -> AsyncIterator[Stub]:
        """Opens a channel with a credential."""
        async with connect(self.server.address, telemetry=self.telemetry, credential=credential) as channel:
            yield SessionServiceStub(channel)


@asynccontextmanager
async def serving(database: ClonedDatabase, **overrides: object) -> AsyncIterator[Replica]:
    """Runs a replica on a database for a block."""
    settings = SessionSettings.load(
        {
            "MINION_DATABASE_URL": database.dsn("session"),
            "MINION_AUTH_MODE": "required",
            "MINION_SERVICE_KEY": SERVICE_KEY,
            "MINION_OPERATOR_KEY": OPERATOR_KEY,
        },
        **{"port": 0, "operations_port": 0, "pool_min_size": 1, "pool_max_size": 8, "active_count_seconds": 0.05}
        | overrides,
    )
    telemetry = Telemetry.start("session", settings)
    async with compose(settings, telemetry) as server:
        await server.start()
        try:
            yield Replica(server, telemetry)
        finally:
            await server.drain_and_stop()
    telemetry.shutdown()
