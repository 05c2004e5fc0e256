"""The session service as different callers reach it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from minion.session.v1.blob_service_pb2_grpc import BlobServiceStub
from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_postgres import Database
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, serve
from uuid_utils.compat import uuid7

if TYPE_CHECKING:
    # Of the type stubs alone.
    from minion.session.v1.blob_service_pb2_grpc import BlobServiceAsyncStub
    from minion.session.v1.session_service_pb2_grpc import SessionServiceAsyncStub

Stub: TypeAlias = "SessionServiceAsyncStub"
Blobs: TypeAlias = "BlobServiceAsyncStub"


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


@asynccontextmanager
async def blob_gateway(replica: Served, tenant_id: UUID) -> AsyncIterator[Blobs]:
    """Calls the blob service as the gateway does, for a tenant."""
    async with replica.acting(tenant_id) as channel:
        yield BlobServiceStub(channel)


async def give_large_blob(owner: Database, tenant_id: UUID, session_id: str) -> None:
    """Gives a session a blob that is said to have 200 MiB, whose bytes are not there."""
    async with owner.transaction(tenant_id) as transaction:
        blob_id = uuid7()
        await transaction.execute(
            "INSERT INTO session.blob_contents (tenant_id, blob_id) VALUES ($1, $2)", tenant_id, blob_id
        )
        await transaction.execute(
            """
            INSERT INTO session.blobs
                   (tenant_id, session_id, blob_id, size_bytes, stored_after, create_time, sha256, media_type, name)
            VALUES ($1, $2, $3, 200 * 1024 * 1024, 0, now(), '', 'text/plain', '')
            """,
            tenant_id,
            UUID(session_id),
            blob_id,
        )


async def eventually(holds: Callable[[], Awaitable[bool] | bool], *, within: float = 10.0) -> None:
    """Waits until a condition holds, with a bound."""
    async with asyncio.timeout(within):
        while True:
            held = holds()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.01)
