"""The gateway's InferenceService alone, as the memory service calls it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar

from minion.gateway.v1 import inference_service_pb2, inference_service_pb2_grpc
from minion_auth import Identity, caller
from minion_gateway.inference.composition import build
from minion_gateway.inference.domain import InferenceCall
from minion_gateway.inference.service import RecordedInference
from minion_gateway.inference.servicer import InferenceServicer
from minion_gateway.inference.settings import InferenceSettings
from minion_grpc import Server, ServerSettings
from minion_grpc.verification import authenticating
from minion_telemetry import Telemetry
from minion_testing.serving import SERVICE_KEY


class GatewaySettings(InferenceSettings, ServerSettings):
    """What the gateway's InferenceService needs alone."""

    service: ClassVar[str] = "gateway"


@dataclass
class Gateway:
    """A running InferenceService, and whom it was called by."""

    address: str
    calls: list[tuple[Identity, InferenceCall]]


@asynccontextmanager
async def inference(**overrides: object) -> AsyncIterator[Gateway]:
    """Serves the gateway's InferenceService."""
    environ = {"MINION_AUTH_MODE": "required", "MINION_SERVICE_KEY": SERVICE_KEY}
    settings = GatewaySettings.load(environ, **{"port": 0, "drain_seconds": 5, **overrides})
    telemetry = Telemetry.start("gateway", settings)
    models = build(settings, telemetry)
    calls: list[tuple[Identity, InferenceCall]] = []

    async def record(call: InferenceCall) -> None:
        calls.append((caller(), call))

    async with authenticating(settings, telemetry) as authenticator:
        server = Server("gateway", settings, telemetry, authenticator)
        server.add(
            inference_service_pb2_grpc.add_InferenceServiceServicer_to_server,
            InferenceServicer(RecordedInference(models, record)),
            inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"],
        )
        await server.start()
        try:
            yield Gateway(server.address, calls)
        finally:
            await server.drain_and_stop()
            await models.close()
            telemetry.shutdown()
