"""`minion embeddings`: the models that memories are embedded with, and the moves from one to another."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, ClassVar

import typer
from minion.memory.v1 import embedding_model_pb2
from minion.memory.v1 import embedding_model_service_pb2 as pb
from minion_errors import FailedPrecondition
from minion_memory.embedding_models.store import InstallStore
from minion_postgres import Database, DatabaseSettings
from minion_telemetry import Telemetry, TelemetrySettings
from uuid_utils.compat import uuid7

from minion_cli import output
from minion_cli.application import group
from minion_cli.connection import Services, call
from minion_cli.loading import load
from minion_cli.output import Column, Format, FormatOption, LimitOption
from minion_cli.paging import take

app = group("Embedding models: what memories are embedded with.")

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model, as provider/model.")]

_COLUMNS = (
    Column("MODEL", lambda model: model.name),
    Column("DIMENSION", lambda model: str(model.dimension), right=True),
    Column("STATE", lambda model: output.enum_text(embedding_model_pb2.EmbeddingModelState, model.state)),
    Column("DEFAULT", lambda model: "yes" if model.is_default else ""),
    Column("REGISTERED (UTC)", lambda model: output.time_text(model.create_time)),
)
_WAIT_SECONDS = 0.5


@app.command("list")
def list_(limit: LimitOption = 50, form: FormatOption = Format.TABLE) -> None:
    """List the models by name; DEFAULT is the one that your tenant stores and searches with."""

    async def work(services: Services) -> list[embedding_model_pb2.EmbeddingModel]:
        return await take(
            services.embedding_models.ListEmbeddingModels,
            pb.ListEmbeddingModelsRequest(),
            "embedding_models",
            embedding_model_pb2.EmbeddingModel,
            limit,
        )

    output.show_list(call(work), _COLUMNS, form)


@app.command()
def register(
    model: ModelArgument,
    dimension: Annotated[int, typer.Argument(help="How many numbers a vector has, 1 to 4,000.")],
    form: FormatOption = Format.TABLE,
) -> None:
    """Register a model, as an operator (MINION_OPERATOR_KEY); the gateway must have it too."""

    async def work(services: Services) -> embedding_model_pb2.EmbeddingModel:
        new = embedding_model_pb2.EmbeddingModel(name=model, dimension=dimension)
        request = pb.RegisterEmbeddingModelRequest(embedding_model=new)
        return (await services.embedding_models.RegisterEmbeddingModel(request)).embedding_model

    output.show_one(call(work, operator=True), form)


@app.command()
def default(model: ModelArgument, form: FormatOption = Format.TABLE) -> None:
    """Make a model the one of your tenant; where memories lack its vectors, `reembed` moves them."""

    async def work(services: Services) -> embedding_model_pb2.EmbeddingModel:
        request = pb.SetDefaultEmbeddingModelRequest(name=model)
        return (await services.embedding_models.SetDefaultEmbeddingModel(request)).embedding_model

    output.show_one(call(work), form)


@app.command()
def reembed(
    model: ModelArgument,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; a move that failed is an error.")] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """Move your tenant's memories to a model, in the background; searches go on."""

    async def work(services: Services) -> embedding_model_pb2.Reembedding:
        request = pb.ReembedMemoriesRequest(to_model=model, request_id=str(uuid7()))
        move = (await services.embedding_models.ReembedMemories(request)).reembedding
        while wait and move.state == embedding_model_pb2.REEMBEDDING_STATE_RUNNING:
            await asyncio.sleep(_WAIT_SECONDS)
            move = await _get(services, move.reembedding_id)
        return move

    move = call(work)
    if move.state == embedding_model_pb2.REEMBEDDING_STATE_FAILED:
        raise FailedPrecondition(
            f"The move to {model} failed: {move.error}",
            reason="REEMBEDDING_FAILED",
            metadata={"reembedding_id": move.reembedding_id},
        )
    output.show_one(move, form)


@app.command()
def status(
    reembedding: Annotated[str, typer.Argument(metavar="REEMBEDDING", help="The move's id, as `reembed` shows it.")],
    form: FormatOption = Format.TABLE,
) -> None:
    """Show how far a move is."""

    async def work(services: Services) -> embedding_model_pb2.Reembedding:
        return await _get(services, reembedding)

    output.show_one(call(work), form)


@app.command()
def install() -> None:
    """Make room for the vectors of models that were registered, as the owner of the database.

    For deployments whose memory service has no MINION_MEMORY_OWNER_DATABASE_URL; with one it does so by itself.
    """
    settings = load(_OwnerSettings)
    installed = asyncio.run(_install(settings))
    print(f"installed: {', '.join(installed)}" if installed else "nothing to install")


class _OwnerSettings(DatabaseSettings, TelemetrySettings):
    """The memory service's database, and what is told of the work there."""

    service: ClassVar[str] = "memory"


async def _install(settings: _OwnerSettings) -> Sequence[str]:
    telemetry = Telemetry.start("cli", settings)
    try:
        async with await Database.connect(
            settings.owner_dsn,
            schema="memory",
            settings=settings.model_copy(update={"pool_min_size": 0, "pool_max_size": 1}),
            telemetry=telemetry,
        ) as database:
            return await InstallStore(database).install()
    finally:
        telemetry.shutdown()


async def _get(services: Services, reembedding_id: str) -> embedding_model_pb2.Reembedding:
    request = pb.GetReembeddingRequest(reembedding_id=reembedding_id)
    return (await services.embedding_models.GetReembedding(request)).reembedding
