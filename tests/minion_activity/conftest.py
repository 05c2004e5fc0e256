"""The activity service over a real channel and database; each test is a tenant of its own."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import pytest_asyncio
from minion_postgres import Database
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, serve
from uuid_utils.compat import uuid7

from tests.minion_activity.stage import Stub, calling


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: ClonedDatabase) -> AsyncIterator[Served]:
    """The service."""
    async with serve("activity", postgres) as served:
        yield served


@pytest.fixture
def tenant_id() -> UUID:
    """The test's tenant."""
    return uuid7()


@pytest_asyncio.fixture(loop_scope="session")
async def activities(service: Served, tenant_id: UUID) -> AsyncIterator[Stub]:
    """The service, as the test's tenant sees it."""
    async with calling(service, tenant_id) as stub:
        yield stub


@pytest_asyncio.fixture(loop_scope="session")
async def strangers(service: Served) -> AsyncIterator[Stub]:
    """The service, as another tenant sees it."""
    async with calling(service, uuid7()) as stub:
        yield stub


@pytest_asyncio.fixture(loop_scope="session")
async def owner(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The database as the schema's owner."""
    async with await postgres.connect("activity", "owner") as database:
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def app(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The database as the service's own role."""
    async with await postgres.connect("activity") as database:
        yield database
