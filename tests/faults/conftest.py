"""The battlefield of a module."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from minion_postgres import Database
from minion_testing.postgres import ClonedDatabase

from tests.faults.stage import Battlefield, GatewayProcess, battlefield


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def field(postgres: ClonedDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Battlefield]:
    """All but the gateway."""
    directory: Path = tmp_path_factory.mktemp("faults")
    async with battlefield(postgres, directory) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(field: Battlefield) -> AsyncIterator[GatewayProcess]:
    """The gateway that has to suffer; the next test finds it restarted."""
    process = field.gateway()
    await process.start()
    yield process
    await process.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def survivor(field: Battlefield) -> AsyncIterator[GatewayProcess]:
    """A replica that nothing happens to."""
    process = field.gateway()
    await process.start()
    yield process
    await process.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owner(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The gateway's database as its owner."""
    async with await postgres.connect("gateway", "owner") as database:
        yield database
