"""Registering, listing and choosing embedding models, and the worker that makes room for their vectors."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest
import pytest_asyncio
import structlog
from minion.memory.v1 import embedding_model_pb2, memory_pb2, memory_service_pb2
from minion.memory.v1 import embedding_model_service_pb2 as pb
from minion_memory.embedding_models.store import InstallStore
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, serve

from tests.minion_memory.models_stage import (
    INSTALLING,
    QUICK,
    READY,
    SMALL,
    ModelStub,
    choosing,
    likeness,
    near,
    operating,
    owner,
    registering,
    until,
)
from tests.minion_memory.stage import MODEL, Stub, batch, calling, connected, memory, placed, towards

MakeDatabase = Callable[..., Awaitable[ClonedDatabase]]
NAMES = ["names/a", "names/b", "names/c"]


@pytest_asyncio.fixture(loop_scope="session")
async def models(service: Served, tenant_id: UUID) -> AsyncIterator[ModelStub]:
    """The models' service, as the test's tenant sees it."""
    async with choosing(service, tenant_id) as stub:
        yield stub


@pytest_asyncio.fixture(loop_scope="session")
async def operator(service: Served) -> AsyncIterator[ModelStub]:
    """The models' service, as an operator sees it."""
    async with operating(service) as stub:
        yield stub


async def listed(stub: ModelStub) -> dict[str, embedding_model_pb2.EmbeddingModel]:
    models = (await stub.ListEmbeddingModels(pb.ListEmbeddingModelsRequest(page_size=500))).embedding_models
    assert [model.name for model in models] == sorted(model.name for model in models)
    return {model.name: model for model in models}


def of_model(name: str, values: list[float], **fields: object) -> memory_service_pb2.NewMemory:
    return memory_service_pb2.NewMemory(
        memory=memory(**fields), embedding=memory_pb2.Embedding(model=name, values=values)
    )


async def test_registered_model_waits_for_its_index(operator: ModelStub) -> None:
    request = registering("acme/new", 8, distance=embedding_model_pb2.EMBEDDING_DISTANCE_COSINE)
    model = (await operator.RegisterEmbeddingModel(request)).embedding_model
    assert (model.name, model.provider, model.dimension) == ("acme/new", "acme", 8)
    assert model.distance == embedding_model_pb2.EMBEDDING_DISTANCE_COSINE
    assert (model.state, model.is_default) == (INSTALLING, False)
    assert model.HasField("create_time")
    assert (await operator.RegisterEmbeddingModel(registering("acme/new", 8))).embedding_model == model
    assert (await listed(operator))["acme/new"] == model


async def test_model_registered_with_another_dimension_is_refused(operator: ModelStub) -> None:
    await operator.RegisterEmbeddingModel(registering("acme/eight", 8))
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "EMBEDDING_MODEL_EXISTS") as refusal:
        await operator.RegisterEmbeddingModel(registering("acme/eight", 9))
    assert refusal.metadata == {"embedding_model": "acme/eight", "dimension": "8"}


@pytest.mark.parametrize(
    ("name", "dimension", "field"),
    [
        ("", 8, "name"),
        ("a/", 8, "name"),
        ("/model", 8, "name"),
        ("model", 8, "name"),
        ("acme/" + "x" * 196, 8, "name"),
        ("acme/a b", 8, "name"),
        ("acme//b", 8, "name"),
        ("acme/a\x00b", 8, "name"),
        ("acme/limits", 0, "dimension"),
        ("acme/limits", -1, "dimension"),
        ("acme/limits", 4_001, "dimension"),
    ],
)
async def test_fields_beyond_their_limits_are_refused(
    operator: ModelStub, name: str, dimension: int, field: str
) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await operator.RegisterEmbeddingModel(registering(name, dimension))
    assert set(refusal.violations) == {f"embedding_model.{field}"}


async def test_unknown_distance_is_refused(operator: ModelStub) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await operator.RegisterEmbeddingModel(registering("acme/far", 8, distance=7))
    assert set(refusal.violations) == {"embedding_model.distance"}


@pytest.mark.parametrize("dimension", [1, 4_000])
async def test_the_smallest_and_the_largest_dimension_are_taken(operator: ModelStub, dimension: int) -> None:
    name = f"acme/{'x' * 190}{dimension:05}"
    assert len(name) == 200
    model = (await operator.RegisterEmbeddingModel(registering(name, dimension))).embedding_model
    assert model.dimension == dimension


async def test_tenants_register_nothing(models: ModelStub) -> None:
    async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"):
        await models.RegisterEmbeddingModel(registering("acme/theirs", 8))


async def test_models_registered_at_once_are_one(operator: ModelStub) -> None:
    answers = await asyncio.gather(*[operator.RegisterEmbeddingModel(registering("acme/once", 8)) for _ in range(8)])
    assert len({answer.embedding_model.SerializeToString(deterministic=True) for answer in answers}) == 1


async def test_list_goes_page_by_page(operator: ModelStub, models: ModelStub) -> None:
    for name in NAMES:
        await operator.RegisterEmbeddingModel(registering(name, 3))
    whole = list((await listed(models)).values())
    pages: list[embedding_model_pb2.EmbeddingModel] = []
    token = ""
    while True:
        page = await models.ListEmbeddingModels(pb.ListEmbeddingModelsRequest(page_size=2, page_token=token))
        pages.extend(page.embedding_models)
        token = page.next_page_token
        if not token:
            break
        assert len(page.embedding_models) == 2
    assert pages == whole
    assert set(NAMES) < {model.name for model in whole}


async def test_negative_page_size_and_foreign_token_are_refused(models: ModelStub) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await models.ListEmbeddingModels(pb.ListEmbeddingModelsRequest(page_size=-1))
    assert set(refusal.violations) == {"page_size"}
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
        await models.ListEmbeddingModels(pb.ListEmbeddingModelsRequest(page_token="WzEsMl0"))


async def test_a_tenant_chooses_for_itself_alone(models: ModelStub, operator: ModelStub, service: Served) -> None:
    assert [name for name, model in (await listed(models)).items() if model.is_default] == [MODEL]
    request = pb.SetDefaultEmbeddingModelRequest(name=SMALL)
    chosen = (await models.SetDefaultEmbeddingModel(request)).embedding_model
    assert (chosen.name, chosen.is_default, chosen.state) == (SMALL, True, READY)
    assert (await models.SetDefaultEmbeddingModel(request)).embedding_model == chosen
    assert [name for name, model in (await listed(models)).items() if model.is_default] == [SMALL]
    assert [name for name, model in (await listed(operator)).items() if model.is_default] == [MODEL]
    async with choosing(service, uuid4()) as strangers:
        assert [name for name, model in (await listed(strangers)).items() if model.is_default] == [MODEL]


async def test_model_that_memories_lack_is_not_chosen(models: ModelStub, memories: Stub) -> None:
    await memories.StoreMemories(batch(placed(towards(0))))
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "REEMBEDDING_NEEDED"):
        await models.SetDefaultEmbeddingModel(pb.SetDefaultEmbeddingModelRequest(name=SMALL))
    # The one that they have is.
    chosen = await models.SetDefaultEmbeddingModel(pb.SetDefaultEmbeddingModelRequest(name=MODEL))
    assert chosen.embedding_model.is_default


async def test_memories_of_another_tenant_are_no_hindrance(models: ModelStub, strangers: Stub) -> None:
    await strangers.StoreMemories(batch(placed(towards(0))))
    await models.SetDefaultEmbeddingModel(pb.SetDefaultEmbeddingModelRequest(name=SMALL))


async def test_name_beyond_its_limits_is_refused(models: ModelStub) -> None:
    for name in ("", "x" * 201):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
            await models.SetDefaultEmbeddingModel(pb.SetDefaultEmbeddingModelRequest(name=name))
        assert set(refusal.violations) == {"name"}
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
            await models.ReembedMemories(pb.ReembedMemoriesRequest(to_model=name))
        assert set(refusal.violations) == {"to_model"}


@pytest.mark.parametrize("name", ["acme/none", "acme/unready"])
async def test_model_that_is_absent_or_not_ready_is_not_used(
    models: ModelStub, memories: Stub, operator: ModelStub, name: str
) -> None:
    code, reason = grpc.StatusCode.NOT_FOUND, "EMBEDDING_MODEL_NOT_FOUND"
    if name == "acme/unready":
        code, reason = grpc.StatusCode.FAILED_PRECONDITION, "EMBEDDING_MODEL_NOT_READY"
        await operator.RegisterEmbeddingModel(registering(name, 2))
    async with refused(code, reason) as refusal:
        await models.SetDefaultEmbeddingModel(pb.SetDefaultEmbeddingModelRequest(name=name))
    assert refusal.metadata == {"embedding_model": name}
    async with refused(code, reason):
        await models.ReembedMemories(pb.ReembedMemoriesRequest(to_model=name))
    async with refused(code, reason):
        await memories.StoreMemories(batch(placed(towards(0)), of_model(name, [1, 0])))
    async with refused(code, reason):
        await memories.SearchMemories(near(name, [1.0, 0.0]))
    assert len((await memories.ListMemories(memory_service_pb2.ListMemoriesRequest())).memories) == 0


@pytest.mark.parametrize(
    ("values", "fault"),
    [([1.0] * 1535, "must have 1536 numbers, has 1535"), ([float("nan")] * 1536, "must hold finite numbers alone")],
)
async def test_vector_of_a_chosen_model_is_checked(
    models: ModelStub, memories: Stub, values: list[float], fault: str
) -> None:
    await models.SetDefaultEmbeddingModel(pb.SetDefaultEmbeddingModelRequest(name=SMALL))
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "VECTOR_INVALID") as refusal:
        await memories.StoreMemories(batch(of_model(SMALL, values)))
    assert refusal.violations == {"memories[0].embedding.values": fault}
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "VECTOR_INVALID"):
        await memories.SearchMemories(near(SMALL, values))


@pytest.mark.parametrize("dimension", [2_000, 2_001])
async def test_the_worker_makes_room_while_others_are_served(
    database_factory: MakeDatabase, tenant_id: UUID, dimension: int
) -> None:
    database = await database_factory()
    agent_id, name = str(uuid4()), "acme/late"
    values = [1.0] + [0.0] * (dimension - 1)
    with structlog.testing.capture_logs() as lines:
        async with (
            serve("memory", database, environ=owner(database), **QUICK) as served,
            calling(served, tenant_id) as stub,
            operating(served) as operator,
        ):
            # A search that has not ended holds a lock on the parent; nobody has to wait for the other.
            reader = await asyncpg.connect(database.admin_dsn)
            async with reader.transaction():
                await reader.fetch("SELECT count(*) FROM memory.memory_vectors")
                await operator.RegisterEmbeddingModel(registering(name, dimension))
                await until(lambda: _is_ready(operator, name))
                await stub.StoreMemories(batch(of_model(name, values, agent_id=agent_id)))
            await reader.close()
            request = near(name, values, agent_id)
            found = await stub.SearchMemories(request)
            assert [likeness(hit) for hit in found.hits] == [pytest.approx(1, abs=1e-3)]

            async def told() -> bool:
                return any(line["event"] == "installed embedding models" for line in lines)

            # The model is ready a moment before that is logged, and a worker that is stopped logs nothing.
            await until(told)
    assert [line["models"] for line in lines if line["event"] == "installed embedding models"] == [[name]]
    async with await database.connect("memory", "owner") as maintainer:
        indexed = await maintainer.fetch_value(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'memory' AND indexname = 'memory_vectors_3_hnsw'"
        )
        kind = await maintainer.fetch_value("SELECT memory.indexed_type($1)", dimension)
    assert kind in indexed
    # HNSW takes no `vector` of more dimensions.
    assert dimension <= 2_000 or kind == f"halfvec({dimension})"


async def _is_ready(stub: ModelStub, name: str) -> bool:
    return (await listed(stub))[name].state == READY


async def test_model_waits_while_somebody_holds_the_table(database_factory: MakeDatabase) -> None:
    database = await database_factory()
    with structlog.testing.capture_logs() as lines:
        async with (
            serve("memory", database, environ=owner(database), **QUICK) as served,
            operating(served) as operator,
        ):
            holder = await connected(database.dsn("memory", "owner"))
            async with holder.transaction():
                await holder.execute("LOCK TABLE memory.memory_vectors IN SHARE UPDATE EXCLUSIVE MODE")
                await operator.RegisterEmbeddingModel(registering("acme/held", 3))

                async def warned() -> bool:
                    return any(line["event"] == "embedding models can't be installed now" for line in lines)

                await until(warned)
                assert not await _is_ready(operator, "acme/held")
            await holder.close()
            await until(lambda: _is_ready(operator, "acme/held"))


async def test_of_several_replicas_one_makes_room(database_factory: MakeDatabase) -> None:
    database = await database_factory()
    async with serve("memory", database) as served, operating(served) as operator:
        await operator.RegisterEmbeddingModel(registering("acme/one", 3))
        await operator.RegisterEmbeddingModel(registering("acme/two", 3))
    async with await database.connect("memory", "owner") as owned:
        installed = await asyncio.gather(*[InstallStore(owned).install() for _ in range(3)])
    assert sorted(name for names in installed for name in names) == ["acme/one", "acme/two"]


async def test_walk_made_by_a_migration_knows_models_installed_meanwhile(database_factory: MakeDatabase) -> None:
    database = await database_factory()
    async with serve("memory", database) as served, operating(served) as operator:
        await operator.RegisterEmbeddingModel(registering("acme/one", 3))
    installer, migration, looker = [await connected(database.dsn("memory", "owner")) for _ in range(3)]
    try:
        async with installer.transaction():
            assert len(await installer.fetch("SELECT memory.install_embedding_models()")) == 1
            making = asyncio.create_task(migration.execute("SELECT memory.make_walk()"))

            async def waits() -> bool:
                asked = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)"
                return bool(await looker.fetchval(asked, migration.get_server_pid()))

            await until(waits)
        await making
        walked = await looker.fetch(
            "SELECT (memory.walk($1, $1, 'ann', NULL, array_fill(1, ARRAY[dimension])::vector, 1, model_id)).ids"
            "  FROM memory.embedding_models",
            uuid4(),
        )
        assert [row["ids"] for row in walked] == [None] * 3
    finally:
        for connection in (installer, migration, looker):
            await connection.close()


async def test_without_the_owners_database_a_warning_is_logged_once(database_factory: MakeDatabase) -> None:
    database = await database_factory()
    with structlog.testing.capture_logs() as lines:
        async with serve("memory", database, **QUICK) as served, operating(served) as operator:
            await operator.RegisterEmbeddingModel(registering("acme/waiting", 3))
            assert not await _is_ready(operator, "acme/waiting")
    # Of this alone: a session feed that is down for a second is warned of as well.
    warnings = [line for line in lines if "INSTALLING" in line["event"]]
    assert [(line["log_level"], line["setting"]) for line in warnings] == [
        ("warning", "MINION_MEMORY_OWNER_DATABASE_URL")
    ]
