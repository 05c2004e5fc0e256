"""A memory service with several models, which looks often for what there is to do."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import pytest_asyncio
from minion_postgres import Database
from minion_testing.fake_provider import FakeProvider
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, serve

from tests.minion_memory.gateway_stage import Gateway, inference
from tests.minion_memory.models_stage import (
    QUICK,
    ModelStub,
    as_app,
    choosing,
    owner,
)

_MODELS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-odd": 1536}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as provider:
        yield provider


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(fake: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """The gateway's models: the local one, and two of OpenAI's behind a faked wire."""
    async with inference(
        model_cache=tmp_path_factory.mktemp("models"),
        openai_base_url=fake.base_url,
        openai_embedding_models=_MODELS,
        provider_attempts=1,
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: ClonedDatabase, gateway: Gateway) -> AsyncIterator[Served]:
    """The memory service, which looks often for what there is to do."""
    # Nothing is noted of searches while tests compare memories, and a local model has time to be read.
    patient = {"access_write_seconds": 3_600, "embed_seconds": 60}
    async with serve(
        "memory", postgres, environ=owner(postgres), gateway_address=gateway.address, **QUICK, **patient
    ) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="session")
async def models(service: Served, tenant_id: UUID) -> AsyncIterator[ModelStub]:
    async with choosing(service, tenant_id) as stub:
        yield stub


@pytest_asyncio.fixture(loop_scope="session")
async def app(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The database as the service's own role, with vectors."""
    async with as_app(postgres) as database:
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def maintainer(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The database as its owner."""
    async with await postgres.connect("memory", "owner") as database:
        yield database
