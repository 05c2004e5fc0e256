"""The memory service over a real channel and database; each test is a tenant of its own."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, serve

from tests.minion_memory.stage import Stub, calling

NOBODY = "127.0.0.1:1"  # an address where nothing answers


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the local embedding model is prepared, once for all tests that ask for it here."""
    return tmp_path_factory.mktemp("models")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: ClonedDatabase) -> AsyncIterator[Served]:
    """The service; its gateway is away."""
    # What waits for a vector is left alone: tests look at it themselves.
    async with serve("memory", postgres, gateway_address=NOBODY, embedding_poll_seconds=3_600) as served:
        yield served


@pytest.fixture
def tenant_id() -> UUID:
    """The test's tenant."""
    return uuid4()


@pytest_asyncio.fixture(loop_scope="session")
async def memories(service: Served, tenant_id: UUID) -> AsyncIterator[Stub]:
    """The service, as the test's tenant sees it."""
    async with calling(service, tenant_id) as stub:
        yield stub


@pytest_asyncio.fixture(loop_scope="session")
async def strangers(service: Served) -> AsyncIterator[Stub]:
    """The service, as another tenant sees it."""
    async with calling(service, uuid4()) as stub:
        yield stub
