"""The registry over a real channel and database; each test is a tenant of its own."""

from collections.abc import AsyncIterator

import pytest_asyncio
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, serve

from tests.minion_registry.stage import Caller, calling, over


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def registry(postgres: ClonedDatabase) -> AsyncIterator[Served]:
    """The running registry of the module."""
    async with serve("registry", postgres, watch_sync_seconds=0.1, feed_poll_seconds=0.02) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="session")
async def tenant(registry: Served) -> AsyncIterator[Caller]:
    """The registry as the test's own tenant sees it, by its API key."""
    async with calling(registry) as caller:
        yield caller


@pytest_asyncio.fixture(loop_scope="session")
async def stranger(registry: Served) -> AsyncIterator[Caller]:
    """The registry as another tenant sees it."""
    async with calling(registry) as caller:
        yield caller


@pytest_asyncio.fixture(loop_scope="session")
async def operator(registry: Served, tenant: Caller) -> AsyncIterator[Caller]:
    """The registry as an operator sees it; the operator names a tenant in metadata, by itself."""
    async with registry.operator() as channel:
        yield over(channel, tenant.tenant_id)
