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
    """Runs a replica on a database for a block; it counts its active sessions often, and looks often for news.

    What it does to sessions by itself it does seldom: tests that are about it say so.
    """
    values = {
        "active_count_seconds": 0.05,
        "feed_poll_seconds": 0.02,
        "watch_sync_seconds": 0.3,
        "activity_seconds": 3_600,
        "expiry_seconds": 3_600,
    }
    return serve("session", database, **{**values, **overrides})


@asynccontextmanager
async def gateway(replica: Served, tenant_id: UUID) -> AsyncIterator[Stub]:
    """Calls the service as the gateway does, for a tenant."""
    async with replica.acting(tenant_id) as channel:
        yield SessionServiceStub(channel)
