"""The session service as different callers reach it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

import pytest
from minion.session.v1.blob_service_pb2_grpc import BlobServiceStub
from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_postgres import Database
from minion_session.blobs.worker import UploadsLeft
from minion_session.changes.service import Activity
from minion_session.expiry.service import Expiry
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, serve
from uuid_utils.compat import uuid7

if TYPE_CHECKING:
    # Of the type stubs alone.
    from minion.session.v1.blob_service_pb2_grpc import BlobServiceAsyncStub
    from minion.session.v1.session_service_pb2_grpc import SessionServiceAsyncStub

Stub: TypeAlias = "SessionServiceAsyncStub"
Blobs: TypeAlias = "BlobServiceAsyncStub"


@asynccontextmanager
async def serving(database: ClonedDatabase, **overrides: Any) -> AsyncIterator[Served]:
    """Runs a replica on a database for a block; it counts its active sessions often, and looks often for news.

    What it does to sessions by itself it does seldom: tests that are about it say so. It begins with all of that, and
    is through with it when the block begins: else it might come to what a test has just made.
    """
    values = {
        "active_count_seconds": 0.05,
        "feed_poll_seconds": 0.02,
        "watch_sync_seconds": 0.3,
        "activity_seconds": 3_600,
        "expiry_seconds": 3_600,
        # While a busy machine stops the process, nobody gives a connection back to those who wait for one.
        "pool_acquire_seconds": 30,
    }
    async with AsyncExitStack() as running:
        with _first_rounds() as done:
            replica = await running.enter_async_context(serve("session", database, **{**values, **overrides}))
            async with asyncio.timeout(60):
                for each in done:
                    await each.wait()
        yield replica


@contextmanager
def _first_rounds() -> Iterator[list[asyncio.Event]]:
    """Gives what is set as a replica that starts meanwhile has done what it does by itself for the first time."""
    done: list[asyncio.Event] = []
    with pytest.MonkeyPatch.context() as patch:
        for kind, name in ((Expiry, "clean_everywhere"), (Activity, "round"), (UploadsLeft, "drop_all")):
            done.append(asyncio.Event())
            patch.setattr(kind, name, _noting(getattr(kind, name), done[-1]))
        yield done


def _noting(work: Callable[[Any], Awaitable[Any]], done: asyncio.Event) -> Callable[[Any], Awaitable[Any]]:
    async def noted(worker: Any) -> Any:
        result = await work(worker)
        done.set()
        return result

    return noted


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


async def eventually(holds: Callable[[], Awaitable[bool] | bool], *, within: float = 60.0) -> None:
    """Waits until a condition holds, with a bound."""
    async with asyncio.timeout(within):
        while True:
            held = holds()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.01)
