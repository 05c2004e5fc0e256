"""Runs the memory service: `python -m minion_memory`."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from minion.memory.v1 import memory_service_pb2
from minion.memory.v1.memory_service_pb2_grpc import add_MemoryServiceServicer_to_server
from minion_auth import ServiceTokens
from minion_grpc import Server, connect, run
from minion_grpc.verification import authenticating
from minion_postgres import Database
from minion_telemetry import Telemetry

from minion_memory.consolidation.service import Consolidation
from minion_memory.consolidation.store import ConsolidationStore
from minion_memory.extraction import composition as extraction
from minion_memory.memories.peer import RETRYABLE, Gateway
from minion_memory.memories.service import Memories
from minion_memory.memories.store import EmbeddingModels, MemoryStore, SearchLimits, prepare
from minion_memory.memories.worker import purge_requests
from minion_memory.portability.service import Portability
from minion_memory.portability.store import ExportStore
from minion_memory.revisions.service import Revisions
from minion_memory.revisions.store import RevisionStore
from minion_memory.servicer import MemoryServicer
from minion_memory.settings import MemorySettings
from minion_memory.subjects.service import Pruning, Subjects
from minion_memory.subjects.store import SubjectStore
from minion_memory.subjects.worker import prune_memories


@asynccontextmanager
async def compose(settings: MemorySettings, telemetry: Telemetry) -> AsyncIterator[Server]:
    """Builds the service, ready to start; what it holds is let go at the end of the block."""
    key = settings.service_key
    tokens = ServiceTokens(key.get_secret_value(), "memory") if key else None
    async with (
        authenticating(settings, telemetry) as authenticator,
        connect(settings.gateway_address, telemetry=telemetry, tokens=tokens, retryable=RETRYABLE) as gateway,
        await Database.connect(
            settings.app_dsn, schema="memory", settings=settings, telemetry=telemetry, on_connect=prepare
        ) as database,
        AsyncExitStack() as held,
    ):
        limits = SearchLimits(
            exact_search_limit=settings.exact_search_limit,
            walk_candidates=settings.walk_candidates,
            walk_limit=settings.walk_limit,
        )
        memory_store = MemoryStore(database, limits)
        memories = Memories(
            memory_store,
            EmbeddingModels(database),
            Gateway(gateway, seconds=settings.embed_seconds),
            default_model=settings.default_embedding_model,
        )
        revisions = Revisions(RevisionStore(database), memory_store, memories)
        portability = Portability(ExportStore(database), memories)
        subject_store = SubjectStore(database)
        # A long stream, or a large erasure, takes as long as it takes.
        unbounded = [f"/minion.memory.v1.MemoryService/{method}" for method in ("ImportMemories", "EraseSubject")]
        drawing = await extraction.build(settings, telemetry, database, gateway, tokens, held)
        consolidation = Consolidation(ConsolidationStore(database))
        server = Server("memory", settings, telemetry, authenticator, deadlines=dict.fromkeys(unbounded))
        server.add(
            add_MemoryServiceServicer_to_server,
            MemoryServicer(memories, revisions, portability, Subjects(subject_store), drawing.service, consolidation),
            memory_service_pb2.DESCRIPTOR.services_by_name["MemoryService"],
        )
        server.background(partial(purge_requests, database), name="purge_requests")
        drawing.attach(server)
        if settings.retention.kept:
            pruning = Pruning(subject_store, settings.retention)
            server.background(partial(prune_memories, pruning, seconds=settings.prune_seconds), name="prune_memories")
        yield server


def main() -> None:
    """Runs the service until it is told to stop."""
    run(MemorySettings, compose)


if __name__ == "__main__":
    main()
