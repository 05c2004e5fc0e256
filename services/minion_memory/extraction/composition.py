"""Puts extraction together: its peers, its stores, its workers."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import grpc
from minion_auth import ServiceTokens
from minion_grpc import Server, connect
from minion_postgres import Database
from minion_telemetry import Telemetry

from minion_memory.embedding_models.service import EmbeddingModels
from minion_memory.extraction.drawing import DrawingStore
from minion_memory.extraction.following import Follower, Looker
from minion_memory.extraction.metrics import ExtractionMetrics
from minion_memory.extraction.peer import REGISTRY_RETRYABLE, SESSION_RETRYABLE, Models, Registry, Sessions
from minion_memory.extraction.policies import Policies
from minion_memory.extraction.service import Extraction
from minion_memory.extraction.store import FeedStore, JobStore
from minion_memory.extraction.worker import Embedding, Worker
from minion_memory.memories.peer import Gateway
from minion_memory.settings import MemorySettings

# Nobody waits for what is embedded beside the calls.
_EMBEDDING_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Parts:
    """Extraction of one replica, ready to start."""

    service: Extraction
    worker: Worker
    follower: Follower | None
    looker: Looker | None
    kept: timedelta

    def attach(self, server: Server) -> None:
        """Lets the workers run while the server serves."""
        server.background(self.worker.run, name="extraction")
        server.background(self.worker.renew, name="extraction_leases")
        server.background(self.worker.measure, name="extraction_backlog")
        server.background(partial(self.worker.purge, self.kept), name="purge_extraction_jobs")
        server.on_drain(self.worker.release)
        if self.follower is not None and self.looker is not None:
            server.background(self.follower.run, name="session_feed")
            server.background(self.looker.run, name="watched_sessions")
            server.on_drain(self.follower.release)


async def build(
    settings: MemorySettings,
    telemetry: Telemetry,
    database: Database,
    gateway: grpc.aio.Channel,
    models: EmbeddingModels,
    tokens: ServiceTokens | None,
    held: AsyncExitStack,
) -> Parts:
    """Builds extraction; its channels are closed with `held`."""

    async def channel(address: str, retryable: tuple[str, ...]) -> grpc.aio.Channel:
        return await held.enter_async_context(
            connect(address, telemetry=telemetry, tls=settings.peer_files, tokens=tokens, retryable=retryable)
        )

    sessions = Sessions(await channel(settings.session_address, SESSION_RETRYABLE))
    policies = Policies(Registry(await channel(settings.registry_address, REGISTRY_RETRYABLE)))
    metrics = ExtractionMetrics(telemetry.registry, follows=settings.follow_sessions)
    jobs, drawing, feed = JobStore(database), DrawingStore(database), FeedStore(database)
    worker = Worker(
        jobs,
        drawing,
        sessions,
        Models(gateway, model=settings.extraction_model, answer_seconds=settings.extraction_answer_seconds),
        Embedding(Gateway(gateway, seconds=_EMBEDDING_SECONDS), models),
        metrics,
        concurrency=settings.extraction_concurrency,
        attempts=settings.extraction_attempts,
        retry_seconds=settings.extraction_retry_seconds,
        lease_seconds=settings.extraction_lease_seconds,
    )
    service = Extraction(
        jobs, drawing, sessions, policies, default_extractor=settings.default_extractor, wake=worker.wake
    )
    follower = looker = None
    if settings.follow_sessions:
        follower = Follower(feed, sessions, metrics)
        looker = Looker(
            feed,
            sessions,
            policies,
            default_extractor=settings.default_extractor,
            idle_seconds=settings.idle_seconds,
            wake=worker.wake,
        )
    return Parts(service, worker, follower, looker, timedelta(days=settings.extraction_jobs_kept_days))
