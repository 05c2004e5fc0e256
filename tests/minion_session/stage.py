"""The session service as different callers reach it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from minion.session.v1.blob_service_pb2_grpc import BlobServiceStub
from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, serve

if TYPE_CHECKING:
    # Of the type stubs alone.
    from minion.session.v1.blob_service_pb2_grpc import BlobServiceAsyncStub
    from minion.session.v1.session_service_pb2_grpc import SessionServiceAsyncStub

Stub: TypeAlias = "SessionServiceAsyncStub"
Blobs: TypeAlias = "BlobServiceAsyncStub"


def serving(database: ClonedDatabase, **overrides: Any) -> AbstractAsyncContextManager[Served]:
    """Runs a replica on a database for a block; it counts its active sessions often."""
    return serve("session", database, active_count_seconds=0.05, **overrides)


@asynccontextmanager
async def gateway(replica: Served, tenant_id: UUID) -> AsyncIterator[Stub]:
    """Calls the service as the gateway does, for a tenant."""
    async with replica.acting(tenant_id) as channel:
        yield SessionServiceStub(channel)


@asynccontextmanager
async def blob_gateway(replica: Served, tenant_id: UUID) -> AsyncIterator[Blobs]:
    """Calls the blob service as the gateway does, for a tenant."""
    async with replica.acting(tenant_id) as channel:
        yield BlobServiceStub(channel)


async def eventually(holds: Callable[[], Awaitable[bool] | bool], *, within: float = 10.0) -> None:
    """Waits until a condition holds, with a bound."""
    async with asyncio.timeout(within):
        while True:
            held = holds()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.01)
