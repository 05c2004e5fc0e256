"""The callers of the embedding models' service in tests, and services that look often for what there is to do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import UUID, uuid4

from minion.memory.v1 import embedding_model_pb2, memory_pb2, memory_service_pb2
from minion.memory.v1 import embedding_model_service_pb2 as pb
from minion.memory.v1.embedding_model_service_pb2_grpc import EmbeddingModelServiceStub
from minion_memory.memories.store import prepare
from minion_postgres import Database
from minion_telemetry import Telemetry
from minion_testing.postgres import ClonedDatabase, ServiceDatabaseSettings
from minion_testing.serving import Served
from pydantic import SecretStr

from tests.minion_memory.stage import Stub, memory

if TYPE_CHECKING:
    # Of the type stubs alone.
    from minion.memory.v1.embedding_model_service_pb2_grpc import EmbeddingModelServiceAsyncStub

ModelStub: TypeAlias = "EmbeddingModelServiceAsyncStub"

SMALL: Final = "openai/text-embedding-3-small"
LARGE: Final = "openai/text-embedding-3-large"  # 3,072 dimensions: indexed as halfvec
RUNNING: Final = embedding_model_pb2.REEMBEDDING_STATE_RUNNING
COMPLETED: Final = embedding_model_pb2.REEMBEDDING_STATE_COMPLETED
FAILED: Final = embedding_model_pb2.REEMBEDDING_STATE_FAILED
READY: Final = embedding_model_pb2.EMBEDDING_MODEL_STATE_READY
INSTALLING: Final = embedding_model_pb2.EMBEDDING_MODEL_STATE_INSTALLING
# Looks that tests need not wait for.
QUICK: Final[Mapping[str, Any]] = {"embedding_poll_seconds": 0.05, "model_install_seconds": 0.05}


@asynccontextmanager
async def choosing(served: Served, tenant_id: UUID) -> AsyncIterator[ModelStub]:
    """Opens a channel to the models' service for a tenant."""
    async with served.acting(tenant_id) as channel:
        yield EmbeddingModelServiceStub(channel)


@asynccontextmanager
async def operating(served: Served) -> AsyncIterator[ModelStub]:
    """Opens a channel to the models' service for an operator."""
    async with served.operator() as channel:
        yield EmbeddingModelServiceStub(channel)


def owner(database: ClonedDatabase) -> Mapping[str, str]:
    """What makes a service install models by itself."""
    return {"MINION_OWNER_DATABASE_URL": database.dsn("memory", "owner")}


def registering(name: str, dimension: int, **fields: object) -> pb.RegisterEmbeddingModelRequest:
    """A request to register a model."""
    model = embedding_model_pb2.EmbeddingModel(name=name, dimension=dimension, **fields)  # type: ignore[arg-type]
    return pb.RegisterEmbeddingModelRequest(embedding_model=model)


def said(agent_id: str, content: str, **fields: object) -> memory_service_pb2.NewMemory:
    """A memory to store that the service has to embed."""
    return memory_service_pb2.NewMemory(memory=memory(agent_id=agent_id, content=content, **fields))


def asking(agent_id: str, query: str, **fields: object) -> memory_service_pb2.SearchMemoriesRequest:
    """A search of `ann`'s memories by a text."""
    return memory_service_pb2.SearchMemoriesRequest(
        agent_id=agent_id,
        user_id="ann",
        query=query,
        **fields,  # type: ignore[arg-type]
    )


def near(
    name: str, values: list[float], agent_id: str = "", **fields: object
) -> memory_service_pb2.SearchMemoriesRequest:
    """A search of `ann`'s memories by a vector of a model."""
    return memory_service_pb2.SearchMemoriesRequest(
        agent_id=agent_id or str(uuid4()),
        user_id="ann",
        vector=memory_pb2.Embedding(model=name, values=values),
        **fields,  # type: ignore[arg-type]
    )


async def ended(stub: ModelStub, reembedding_id: str, *, seconds: float = 60) -> embedding_model_pb2.Reembedding:
    """Waits until a move has ended."""

    async def terminal() -> embedding_model_pb2.Reembedding | None:
        found = (await stub.GetReembedding(pb.GetReembeddingRequest(reembedding_id=reembedding_id))).reembedding
        return found if found.state != RUNNING else None

    found = await until(terminal, seconds=seconds)
    assert isinstance(found, embedding_model_pb2.Reembedding)
    return found


async def until(check: Callable[[], Awaitable[object]], *, seconds: float = 60) -> object:
    """Waits until the check gives something true, and gives that."""
    async with asyncio.timeout(seconds):
        while not (found := await check()):  # noqa: ASYNC110 - what is waited for happens in the database
            await asyncio.sleep(0.02)
    return found


@asynccontextmanager
async def as_app(database: ClonedDatabase) -> AsyncIterator[Database]:
    """Opens a database as the service's own role, with vectors."""
    dsn = database.dsn("memory")
    settings = ServiceDatabaseSettings.load({}, database_url=SecretStr(dsn), pool_min_size=1)
    telemetry = Telemetry.start("memory", settings)
    async with await Database.connect(
        dsn, schema="memory", settings=settings, telemetry=telemetry, on_connect=prepare
    ) as opened:
        yield opened


async def vectors(maintainer: Database, tenant_id: UUID) -> dict[str, int]:
    """How many vectors of each model the tenant has."""
    rows = await maintainer.fetch(
        "SELECT m.name, count(*) AS count FROM memory.memory_vectors v JOIN memory.embedding_models m USING (model_id)"
        " WHERE tenant_id = $1 GROUP BY 1",
        tenant_id,
    )
    return {row["name"]: row["count"] for row in rows}


async def until_vectors(maintainer: Database, tenant_id: UUID, expected: dict[str, int]) -> None:
    """Waits until the tenant has these vectors."""

    async def there_are() -> bool:
        return await vectors(maintainer, tenant_id) == expected

    await until(there_are)


def likeness(hit: memory_pb2.MemoryHit) -> float:
    """The cosine similarity of a hit, which is its score where nothing else is weighed."""
    return hit.similarity if hit.HasField("similarity") else hit.score


async def contents(memories: Stub, agent_id: str, query: str, **fields: object) -> list[str]:
    found = await memories.SearchMemories(asking(agent_id, query, **fields))
    return [hit.memory.content for hit in found.hits]
