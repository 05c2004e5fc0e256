"""InferenceService served for tests: a real server, a real channel, a provider faked at the wire."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
from minion.gateway.v1 import inference_service_pb2, inference_service_pb2_grpc
from minion_auth import EVERYTHING, Authenticator, ServiceTokens, VerifiedKey, api_keys
from minion_errors import MinionError
from minion_gateway.inference.composition import build
from minion_gateway.inference.domain import InferenceCall
from minion_gateway.inference.service import Inference, RecordedInference
from minion_gateway.inference.servicer import InferenceServicer
from minion_gateway.inference.settings import InferenceSettings
from minion_grpc import Server, ServerSettings, connect
from minion_telemetry import Telemetry
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

SERVICE_KEY = "a service key of tests, long enough to be one"


class StageSettings(InferenceSettings, ServerSettings):
    """What an inference server needs."""


@dataclass
class Keys:
    """The keys that the registry would know."""

    known: dict[bytes, VerifiedKey] = field(default_factory=dict)

    def issue(self, tenant_id: UUID | None = None) -> str:
        """Makes a key that works."""
        key = api_keys.generate()
        self.known[key.digest] = VerifiedKey(uuid4(), tenant_id or uuid4(), None, EVERYTHING)
        return key.secret

    async def verify(self, digest: bytes) -> VerifiedKey | None:
        """Gives the key, or None."""
        return self.known.get(digest)

    async def suspended(self, tenant_id: UUID) -> bool | None:
        """Gives whether the tenant is suspended."""
        return False if any(key.tenant_id == tenant_id for key in self.known.values()) else None


@dataclass
class Served:
    """A running server, and what it left behind."""

    stub: "inference_service_pb2_grpc.InferenceServiceAsyncStub"
    inference: Inference
    recorded: list[InferenceCall]
    recording: asyncio.Event
    refusing: list[MinionError]  # what the recorder fails with
    telemetry: Telemetry
    finished: InMemorySpanExporter

    def spans(self, name: str) -> list[ReadableSpan]:
        """Gives the finished spans of a name."""
        self.telemetry.flush()
        return [span for span in self.finished.get_finished_spans() if span.name == name]

    def metrics(self) -> str:
        """Gives the text that /metrics would."""
        return generate_latest(self.telemetry.registry).decode()


@asynccontextmanager
async def serving(cache: Path, **values: Any) -> AsyncIterator[Served]:
    """Serves InferenceService with the settings given."""
    settings = StageSettings(
        **{"auth_mode": "required", "service_key": SERVICE_KEY, "drain_seconds": 5, "model_cache": cache, **values}
    )
    finished = InMemorySpanExporter()
    telemetry = Telemetry.start("gateway", settings, span_exporters=[finished])
    keys = Keys()
    recorded: list[InferenceCall] = []
    recording = asyncio.Event()
    refusing: list[MinionError] = []

    async def record(call: InferenceCall) -> None:
        if refusing:
            raise refusing[0]
        recorded.append(call)
        recording.set()

    inference = build(settings, telemetry)
    server = Server(
        "gateway", settings, telemetry, Authenticator(settings, keys, ServiceTokens(SERVICE_KEY, "gateway"))
    )
    server.add(
        inference_service_pb2_grpc.add_InferenceServiceServicer_to_server,
        InferenceServicer(RecordedInference(inference, record)),
        inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"],
    )
    await inference.start()
    await server.start()
    try:
        channel: grpc.aio.Channel = connect(server.address, telemetry=telemetry, tls=None, credential=keys.issue())
        async with channel:
            stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
            yield Served(stub, inference, recorded, recording, refusing, telemetry, finished)
    finally:
        await server.drain_and_stop()
        await inference.close()
        telemetry.shutdown()
