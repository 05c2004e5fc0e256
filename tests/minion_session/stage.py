"""The session service as different callers reach it."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, serve

if TYPE_CHECKING:
    # Of the type stubs alone.
    from minion.session.v1.session_service_pb2_grpc import SessionServiceAsyncStub

Stub: TypeAlias = "SessionServiceAsyncStub"


def serving(database: ClonedDatabase, **overrides: Any) -> AbstractAsyncContextManager[Served]:
    """Runs a replica on a database for a block; it counts its active sessions often."""
    return serve("session", database, active_count_seconds=0.05, **overrides)


@asynccontextmanager
async def gateway(replica: Served, tenant_id: UUID) -> AsyncIterator[Stub]:
    """Calls the service as the gateway does, for a tenant."""
    async with replica.acting(tenant_id) as channel:
        yield SessionServiceStub(channel)
