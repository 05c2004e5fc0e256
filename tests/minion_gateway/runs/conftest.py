"""The gateway's runs over real channels, a real database and a fake provider; each test is a tenant of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from minion_postgres import Database
from minion_testing.fake_provider import FakeProvider
from minion_testing.postgres import ClonedDatabase

from tests.minion_gateway.runs.stage import Client, Stage, staging


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the local embedding model is prepared, once a test session."""
    return tmp_path_factory.mktemp("models")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(postgres: ClonedDatabase, model_cache: Path) -> AsyncIterator[Stage]:
    """The services for a module's tests."""
    async with staging(postgres, model_cache) as running:
        yield running


@pytest.fixture
def provider(stage: Stage) -> FakeProvider:
    """The provider, with nothing scripted and nothing asked yet."""
    stage.provider.reset()
    return stage.provider


@pytest_asyncio.fixture(loop_scope="session")
async def client(stage: Stage, provider: FakeProvider) -> AsyncIterator[Client]:
    """A tenant that nothing else has used."""
    del provider
    async with Client(stage) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owner(stage: Stage) -> AsyncIterator[Database]:
    """The gateway's database as its owner."""
    async with await stage.database.connect("gateway", "owner") as database:
        yield database
