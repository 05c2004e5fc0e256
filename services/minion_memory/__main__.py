"""Runs the memory service: `python -m minion_memory`."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib import resources

from minion.memory.v1 import embedding_model_service_pb2, memory_service_pb2
from minion.memory.v1.embedding_model_service_pb2_grpc import add_EmbeddingModelServiceServicer_to_server
from minion.memory.v1.memory_service_pb2_grpc import add_MemoryServiceServicer_to_server
from minion_auth import ServiceTokens
from minion_grpc import Server, connect, run
from minion_grpc.verification import authenticating
from minion_postgres import Database, Migrations
from minion_telemetry import Telemetry

from minion_memory.consolidation.service import Consolidation
from minion_memory.consolidation.store import ConsolidationStore
from minion_memory.embedding_models.service import EmbeddingModels, ModelCatalogue
from minion_memory.embedding_models.servicer import EmbeddingModelServicer
from minion_memory.embedding_models.store import EmbeddingModelStore, InstallStore
from minion_memory.embedding_models.worker import Installer, Sweeper, warn_of_missing_owner
from minion_memory.extraction import composition as extraction
from minion_memory.memories.peer import RETRYABLE, Gateway
from minion_memory.memories.service import Memories
from minion_memory.memories.store import MemoryStore, prepare
from minion_memory.memories.worker import purge_requests
from minion_memory.portability.service import Portability
from minion_memory.portability.store import ExportStore
from minion_memory.reembedding.service import Reembeddings
from minion_memory.reembedding.store import ReembeddingStore, UnembeddedStore
from minion_memory.reembedding.worker import Embedding, LateEmbedder, Reembedder
from minion_memory.retrieval.domain import AccessLog
from minion_memory.retrieval.metrics import RetrievalMetrics
from minion_memory.retrieval.service import Retrieval
from minion_memory.retrieval.store import RetrievalStore, SearchLimits
from minion_memory.retrieval.worker import ACCESS_LIMIT, AccessWriter
from minion_memory.revisions.service import Revisions
from minion_memory.revisions.store import RevisionStore
from minion_memory.servicer import MemoryServicer
from minion_memory.settings import MemorySettings
from minion_memory.subjects.service import Pruning, Subjects
from minion_memory.subjects.store import SubjectStore
from minion_memory.subjects.worker import prune_memories

# Making room for a model takes milliseconds; a statement of the owner's may wait for others'.
_MAINTENANCE_SECONDS = 60.0
_EMBEDDING_SECONDS = 60.0


@asynccontextmanager
async def compose(settings: MemorySettings, telemetry: Telemetry) -> AsyncIterator[Server]:
    """Builds the service, ready to start; what it holds is let go at the end of the block."""
    key = settings.service_key
    tokens = ServiceTokens(key.get_secret_value(), "memory") if key else None
    async with (
        authenticating(settings, telemetry) as authenticator,
        connect(
            settings.gateway_address,
            telemetry=telemetry,
            tls=settings.peer_files,
            tokens=tokens,
            retryable=RETRYABLE,
        ) as gateway,
        await Database.connect(
            settings.app_dsn,
            schema="memory",
            settings=settings,
            telemetry=telemetry,
            migrations=Migrations("memory", resources.files("minion_memory") / "migrations"),
            on_connect=prepare,
        ) as database,
        AsyncExitStack() as held,
    ):
        limits = SearchLimits(
            exact_search_limit=settings.exact_search_limit,
            walk_candidates=settings.walk_candidates,
            walk_limit=settings.walk_limit,
        )
        model_store = EmbeddingModelStore(database)
        models = EmbeddingModels(model_store, default_model=settings.default_embedding_model)
        memory_store = MemoryStore(database)
        embedder = Gateway(gateway, seconds=settings.embed_seconds)
        memories = Memories(memory_store, models, embedder, telemetry)
        searches, accesses = RetrievalStore(database, limits), AccessLog(ACCESS_LIMIT)
        writer = AccessWriter(searches, accesses, seconds=settings.access_write_seconds)
        revisions = Revisions(RevisionStore(database), memory_store, memories, models)
        portability = Portability(ExportStore(database), memories)
        subject_store = SubjectStore(database)
        # A long stream, or a large erasure, takes as long as it takes.
        unbounded = [f"/minion.memory.v1.MemoryService/{method}" for method in ("ImportMemories", "EraseSubject")]
        drawing = await extraction.build(settings, telemetry, database, gateway, models, tokens, held)
        consolidation = Consolidation(ConsolidationStore(database), models)
        server = Server("memory", settings, telemetry, authenticator, deadlines=dict.fromkeys(unbounded))
        server.add(
            add_MemoryServiceServicer_to_server,
            MemoryServicer(
                memories=memories,
                retrieval=Retrieval(
                    searches, models, embedder, accesses, telemetry, RetrievalMetrics(telemetry.registry)
                ),
                revisions=revisions,
                portability=portability,
                subjects=Subjects(subject_store),
                extraction=drawing.service,
                consolidation=consolidation,
            ),
            memory_service_pb2.DESCRIPTOR.services_by_name["MemoryService"],
        )
        server.background(partial(purge_requests, database), name="purge_requests")
        drawing.attach(server)
        if settings.retention.kept:
            pruning = Pruning(subject_store, settings.retention)
            server.background(partial(prune_memories, pruning, seconds=settings.prune_seconds), name="prune_memories")
        # Nobody waits for what is embedded beside the calls.
        patient = Gateway(gateway, seconds=_EMBEDDING_SECONDS)
        _add_models(server, settings, telemetry, database, model_store, models, patient)
        server.background(writer.run, name="write_accesses")
        try:
            yield server
        finally:
            # The calls have ended by now, and nothing more is noted.
            await writer.flush()


def _add_models(
    server: Server,
    settings: MemorySettings,
    telemetry: Telemetry,
    database: Database,
    store: EmbeddingModelStore,
    models: EmbeddingModels,
    gateway: Gateway,
) -> None:
    """Adds the embedding models' service, and the workers that make vectors and room for them."""
    reembeddings = ReembeddingStore(database, lease_seconds=settings.reembedding_lease_seconds)
    server.add(
        add_EmbeddingModelServiceServicer_to_server,
        EmbeddingModelServicer(ModelCatalogue(store, models), Reembeddings(database, reembeddings, models)),
        embedding_model_service_pb2.DESCRIPTOR.services_by_name["EmbeddingModelService"],
    )
    if settings.owner_database_url is None:
        server.background(warn_of_missing_owner, name="install_models")
    else:
        installer = Installer(store, lambda: _as_owner(settings, telemetry), seconds=settings.model_install_seconds)
        server.background(installer.run, name="install_models")
    poll = settings.embedding_poll_seconds
    embed = Embedding(gateway)
    server.background(Reembedder(reembeddings, models, embed, poll_seconds=poll).run, name="reembed")
    server.background(LateEmbedder(UnembeddedStore(database), models, embed, poll_seconds=poll).run, name="embed_later")
    server.background(Sweeper(store, poll_seconds=poll).run, name="sweep_vectors")


@asynccontextmanager
async def _as_owner(settings: MemorySettings, telemetry: Telemetry) -> AsyncIterator[InstallStore]:
    maintenance = settings.model_copy(
        update={"pool_min_size": 0, "pool_max_size": 1, "statement_seconds": _MAINTENANCE_SECONDS}
    )
    async with await Database.connect(
        settings.owner_dsn, schema="memory", settings=maintenance, telemetry=telemetry, measured=False
    ) as database:
        yield InstallStore(database)


def main() -> None:
    """Runs the service until it is told to stop."""
    run(MemorySettings, compose)


if __name__ == "__main__":
    main()
