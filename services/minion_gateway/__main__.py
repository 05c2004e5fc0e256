"""Runs the gateway: `python -m minion_gateway`."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from importlib import resources
from uuid import UUID

import grpc
from minion.gateway.v1 import inference_service_pb2, run_service_pb2
from minion.gateway.v1.inference_service_pb2_grpc import add_InferenceServiceServicer_to_server
from minion.gateway.v1.run_service_pb2_grpc import add_RunServiceServicer_to_server
from minion_audit import RETRYABLE as AUDIT_RETRYABLE
from minion_audit import ActivityPeer, OutboxStore, Relay
from minion_auth import ServiceTokens
from minion_grpc import Server, connect, run
from minion_grpc.verification import authenticating
from minion_postgres import Database, Migrations
from minion_telemetry import Telemetry
from uuid_utils.compat import uuid7

from minion_gateway.agents import peer as agents_peer
from minion_gateway.agents.metrics import AgentMetrics
from minion_gateway.agents.service import Agents
from minion_gateway.inference import composition
from minion_gateway.inference.service import Inference, RecordedInference
from minion_gateway.inference.servicer import InferenceServicer
from minion_gateway.outbox.service import Outbox
from minion_gateway.outbox.store import InferenceOutboxStore
from minion_gateway.runs.asking import Asking
from minion_gateway.runs.beginning import Beginning
from minion_gateway.runs.blobs import BlobPeer
from minion_gateway.runs.calling import Calling
from minion_gateway.runs.driver import Driver
from minion_gateway.runs.engine import Engine
from minion_gateway.runs.events import EventWriter
from minion_gateway.runs.feeds import Feeds
from minion_gateway.runs.keeping import Keeping
from minion_gateway.runs.listed_steps import StepReader
from minion_gateway.runs.metrics import RunMetrics
from minion_gateway.runs.peer import MEMORY_RETRYABLE, SESSION_RETRYABLE, MemoryPeer, SessionPeer
from minion_gateway.runs.points import point
from minion_gateway.runs.service import Runs
from minion_gateway.runs.servicer import RunServicer
from minion_gateway.runs.store import RunStore
from minion_gateway.runs.worker import LeaseKeeper
from minion_gateway.settings import GatewaySettings
from minion_gateway.summaries import peer as summaries_peer
from minion_gateway.summaries.service import Summarizer
from minion_gateway.summaries.store import SummaryStore
from minion_gateway.summaries.worker import SummaryWorker
from minion_gateway.tools.builtins.blobs import ReadBlob
from minion_gateway.tools.builtins.calculator import Calculator
from minion_gateway.tools.builtins.clock import Clock
from minion_gateway.tools.builtins.memories import Recall, Remember
from minion_gateway.tools.builtins.workspace import Workspace
from minion_gateway.tools.domain import Builtin
from minion_gateway.tools.metrics import ToolMetrics
from minion_gateway.tools.service import Toolbox

# A turn may take an hour; how long its caller waits is the caller's business.
_DEADLINES = {"/minion.gateway.v1.RunService/CreateRun": None}
_STREAMING = ("/minion.gateway.v1.RunService/StreamRun", "/minion.gateway.v1.InferenceService/StreamComplete")


@asynccontextmanager
async def compose(settings: GatewaySettings, telemetry: Telemetry) -> AsyncIterator[Server]:
    """Builds the service, ready to start; what it holds is let go at the end of the block."""
    key = settings.service_key
    tokens = ServiceTokens(key.get_secret_value(), "gateway") if key else None

    async with AsyncExitStack() as held:

        async def channel(
            address: str, retryable: tuple[str, ...], max_message_bytes: int = 4 * 1024 * 1024
        ) -> grpc.aio.Channel:
            return await held.enter_async_context(
                connect(
                    address,
                    telemetry=telemetry,
                    tls=settings.peer_files,
                    tokens=tokens,
                    retryable=retryable,
                    max_message_bytes=max_message_bytes,
                )
            )

        authenticator = await held.enter_async_context(authenticating(settings, telemetry))
        registry = agents_peer.RegistryPeer(
            await channel(settings.registry_address, agents_peer.RETRYABLE, agents_peer.MAXIMUM_BYTES)
        )
        session_channel = await channel(settings.session_address, SESSION_RETRYABLE + summaries_peer.RETRYABLE)
        sessions, blobs = SessionPeer(session_channel), BlobPeer(session_channel)
        memories = MemoryPeer(await channel(settings.memory_address, MEMORY_RETRYABLE))
        activity = ActivityPeer(await channel(settings.activity_address, AUDIT_RETRYABLE))
        database = await held.enter_async_context(
            await Database.connect(
                settings.app_dsn,
                schema="gateway",
                settings=settings,
                telemetry=telemetry,
                migrations=Migrations("gateway", resources.files("minion_gateway") / "migrations"),
            )
        )
        inference = composition.build(settings, telemetry)
        held.push_async_callback(inference.close)
        await inference.start()

        relay = Relay(
            OutboxStore(database, schema="gateway"),
            activity,
            telemetry,
            service="gateway",
            point=point,
            poll_seconds=settings.outbox_poll_seconds,
            claim_seconds=settings.outbox_claim_seconds,
        )
        agents = Agents(registry, AgentMetrics(telemetry.registry))
        replica, lease = UUID(int=uuid7().int), timedelta(seconds=settings.lease_seconds)
        store = RunStore(database, replica=replica, lease=lease)
        summaries = summarizing(
            settings, SummaryStore(database, replica=replica, lease=lease), session_channel, inference, telemetry
        )
        feeds = Feeds()
        writer = EventWriter(store)
        metrics = RunMetrics(telemetry.registry)
        driver = Driver(
            store,
            feeds,
            writer,
            telemetry,
            metrics,
            lease_seconds=settings.lease_seconds,
            maximum_runs=settings.maximum_runs,
        )
        tools = builtins(sessions, blobs, memories, inference)
        tool_metrics = ToolMetrics(telemetry.registry, tools)
        driver.use(
            Engine(
                store,
                sessions,
                Beginning(sessions, memories, inference),
                Asking(inference),
                Calling(Toolbox(tools, tool_metrics), Keeping(blobs), telemetry, tool_metrics),
                maximum_recoveries=settings.maximum_recoveries,
                takes_next=lambda: driver.takes_more,
                summary_asked=summaries.wake,
            )
        )
        held.push_async_callback(driver.drain)
        held.push_async_callback(summaries.drain)
        leases = LeaseKeeper(store, driver, metrics, lease_seconds=settings.lease_seconds)
        runs = Runs(
            store,
            driver,
            feeds,
            sessions,
            agents,
            inference,
            steps=StepReader(database),
            poll_seconds=settings.event_poll_seconds,
        )

        server = Server("gateway", settings, telemetry, authenticator, deadlines=_DEADLINES)
        server.add(
            add_RunServiceServicer_to_server,
            RunServicer(runs),
            run_service_pb2.DESCRIPTOR.services_by_name["RunService"],
        )
        server.add(
            add_InferenceServiceServicer_to_server,
            InferenceServicer(RecordedInference(inference, Outbox(InferenceOutboxStore(database)).record)),
            inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"],
        )
        if not settings.streaming_enabled:
            server.switch_off(_STREAMING, "MINION_GATEWAY_STREAMING_ENABLED")
        server.background(agents.watch, name="agents")
        server.background(writer.run, name="events")
        server.background(leases.pick, name="picker")
        server.background(leases.renew, name="leases")
        server.background(leases.measure, name="waiting runs")
        server.background(summaries.run, name="summaries")
        server.background(summaries.renew, name="summary leases")
        server.background(relay.run, name="outbox")
        server.on_drain(driver.drain)
        server.on_drain(summaries.drain)
        yield server


def summarizing(
    settings: GatewaySettings,
    store: SummaryStore,
    sessions: grpc.aio.Channel,
    inference: Inference,
    telemetry: Telemetry,
) -> SummaryWorker:
    """Builds what makes summaries after turns."""
    summarizer = Summarizer(
        store,
        summaries_peer.SummaryPeer(sessions),
        inference,
        input_tokens=settings.summary_input_tokens,
        maximum_recoveries=settings.maximum_recoveries,
        answer_seconds=settings.provider_answer_seconds,
    )
    return SummaryWorker(
        store,
        summarizer,
        telemetry,
        lease_seconds=settings.lease_seconds,
        poll_seconds=settings.summary_poll_seconds,
    )


def builtins(sessions: SessionPeer, blobs: BlobPeer, memories: MemoryPeer, inference: Inference) -> dict[str, Builtin]:
    """Returns the tools that the gateway has by itself, by the name that a tool of the registry calls them."""
    return {
        "clock": Clock(),
        "calculator": Calculator(),
        "workspace": Workspace(sessions),
        "remember": Remember(memories, inference),
        "recall": Recall(memories, inference),
        "read_blob": ReadBlob(blobs),
    }


def main() -> None:
    """Runs the service until it is told to stop."""
    run(GatewaySettings, compose)


if __name__ == "__main__":
    main()
