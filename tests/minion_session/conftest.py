"""The session service as different callers see it, and ways to look behind it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import grpc
import pytest
import pytest_asyncio
from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_postgres import Database
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served
from uuid_utils.compat import uuid7

from tests.minion_session.stage import Blobs, Stub, blob_gateway, gateway, serving


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def replica(postgres: ClonedDatabase) -> AsyncIterator[Served]:
    """One replica for a module's tests."""
    async with serving(postgres) as running:
        yield running


@pytest.fixture
def tenant_id() -> UUID:
    """A tenant that nothing else has used."""
    return uuid7()


@pytest_asyncio.fixture(loop_scope="session")
async def session(replica: Served, tenant_id: UUID) -> AsyncIterator[Stub]:
    """The service as the gateway calls it for the test's tenant."""
    async with gateway(replica, tenant_id) as stub:
        yield stub


@pytest_asyncio.fixture(loop_scope="session")
async def stranger(replica: Served) -> AsyncIterator[Stub]:
    """The service as another tenant sees it."""
    async with gateway(replica, uuid7()) as stub:
        yield stub


@pytest_asyncio.fixture(loop_scope="session")
async def blobs(replica: Served, tenant_id: UUID) -> AsyncIterator[Blobs]:
    """The blob service as the gateway calls it for the test's tenant."""
    async with blob_gateway(replica, tenant_id) as stub:
        yield stub


@pytest_asyncio.fixture(loop_scope="session")
async def client(replica: Served, tenant_id: UUID) -> AsyncIterator[tuple[Stub, grpc.aio.Metadata]]:
    """The service as somebody calls it who is no service, and the metadata that names the tenant."""
    async with replica.operator() as channel:
        yield SessionServiceStub(channel), grpc.aio.Metadata(("minion-tenant", str(tenant_id)))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owner(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The database as the schema's owner, to turn clocks and count rows."""
    async with await postgres.connect("session", "owner") as database:
        yield database


@pytest.fixture
def expire(owner: Database) -> Callable[[str], Awaitable[None]]:
    """Puts a session's expire time into the past."""

    async def expire(session_id: str) -> None:
        touched = await owner.execute(
            "UPDATE session.sessions SET expire_time = now() - interval '1 second' WHERE session_id = $1",
            UUID(session_id),
        )
        assert touched == 1

    return expire


@pytest.fixture
def lapse(owner: Database) -> Callable[[str], Awaitable[None]]:
    """Lets the hold on a session lapse."""

    async def lapse(session_id: str) -> None:
        touched = await owner.execute(
            "UPDATE session.sessions SET hold_until = now() - interval '1 second'"
            " WHERE session_id = $1 AND hold_until IS NOT NULL",
            UUID(session_id),
        )
        assert touched == 1

    return lapse
