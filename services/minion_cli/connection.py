"""Where the services answer and with which credential: from the environment, else from the stack in `.minion`."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeVar

import grpc
from minion.activity.v1.activity_service_pb2_grpc import ActivityServiceStub
from minion.gateway.v1.inference_service_pb2_grpc import InferenceServiceStub
from minion.gateway.v1.run_service_pb2_grpc import RunServiceStub
from minion.memory.v1.embedding_model_service_pb2_grpc import EmbeddingModelServiceStub
from minion.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from minion.registry.v1.agent_service_pb2_grpc import AgentServiceStub
from minion.registry.v1.api_key_service_pb2_grpc import ApiKeyServiceStub
from minion.registry.v1.rollout_service_pb2_grpc import RolloutServiceStub
from minion.registry.v1.tenant_service_pb2_grpc import TenantServiceStub
from minion.registry.v1.tool_service_pb2_grpc import ToolServiceStub
from minion.session.v1.blob_service_pb2_grpc import BlobServiceStub
from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_auth import bearer
from minion_errors import FailedPrecondition, MinionError
from minion_grpc import TlsFiles, connect, peer_errors
from minion_telemetry import Telemetry, TelemetrySettings
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from minion_cli.application import tls_options
from minion_cli.client_settings import CallSettings
from minion_cli.development.directory import DEFAULT, Directory
from minion_cli.loading import load

if TYPE_CHECKING:
    # Exist for the type checker alone.
    from minion.activity.v1.activity_service_pb2_grpc import ActivityServiceAsyncStub
    from minion.gateway.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub
    from minion.gateway.v1.run_service_pb2_grpc import RunServiceAsyncStub
    from minion.memory.v1.embedding_model_service_pb2_grpc import EmbeddingModelServiceAsyncStub
    from minion.memory.v1.memory_service_pb2_grpc import MemoryServiceAsyncStub
    from minion.registry.v1.agent_service_pb2_grpc import AgentServiceAsyncStub
    from minion.registry.v1.api_key_service_pb2_grpc import ApiKeyServiceAsyncStub
    from minion.registry.v1.rollout_service_pb2_grpc import RolloutServiceAsyncStub
    from minion.registry.v1.tenant_service_pb2_grpc import TenantServiceAsyncStub
    from minion.registry.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from minion.session.v1.blob_service_pb2_grpc import BlobServiceAsyncStub
    from minion.session.v1.session_service_pb2_grpc import SessionServiceAsyncStub

DEFAULT_PORTS: Final[Mapping[str, int]] = {
    "gateway": 50050,
    "registry": 50051,
    "session": 50052,
    "memory": 50053,
    "activity": 50054,
}

# What a caller's code decides a retry by, and tells a person nothing.
_FOR_PROGRAMS: Final = frozenset({"outcome", "charged"})

# What gRPC says of a connection that fails, and what a person can do about it.
_HINTS: Final = (
    ("handshake failed", "does it speak TLS, with a certificate of the CAs in --ca?"),
    ("Verification", "its certificate is that of another host"),
    ("Socket closed", "does it want TLS (--tls), or a certificate of yours (--cert, --key)?"),
    ("", "is `minion dev` running?"),
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Connection:
    """Where to call, and as whom."""

    addresses: Mapping[str, str]
    credential: str
    tls: TlsFiles | None = None


def discover(*, operator: bool = False, environ: Mapping[str, str] | None = None) -> Connection:
    """Finds addresses and credential: `MINION_<SERVICE>_ADDRESS`, `MINION_API_KEY` (for operators
    `MINION_OPERATOR_KEY`), else what `minion dev` left in `.minion` of the current directory. TLS is as the command
    line says, else as `MINION_CLIENT_TLS` and the variables beside it do.

    Raises FailedPrecondition when there is no credential, it can't be sent, or settings are wrong.
    """
    environ = os.environ if environ is None else environ
    directory = Directory(DEFAULT)
    stack = directory.find_stack()
    running = stack.addresses if stack is not None else {}
    addresses = {
        service: environ.get(f"MINION_{service.upper()}_ADDRESS") or running.get(service) or f"127.0.0.1:{port}"
        for service, port in DEFAULT_PORTS.items()
    }
    variable = "MINION_OPERATOR_KEY" if operator else "MINION_API_KEY"
    credential = environ.get(variable)
    if not credential:
        kept = directory.find_credentials()
        credential = None if kept is None else (kept.operator_key if operator else kept.api_key)
    if not credential:
        raise FailedPrecondition(
            f"There is no credential: set {variable}, or run `minion dev` in this directory.",
            reason="CREDENTIAL_MISSING",
        )
    if not bearer.can_be_sent(credential):
        raise FailedPrecondition(
            f"{variable} can't be sent: it must be printable ASCII, with no space around it and no line's end.",
            reason="CREDENTIAL_INVALID",
        )
    return Connection(addresses, credential, load(CallSettings, environ, **tls_options.get()).client_files)


class Services:
    """The stubs of all services, each connected when first used."""

    def __init__(self, connection: Connection, telemetry: Telemetry) -> None:
        self._connection = connection
        self._telemetry = telemetry
        self._channels: dict[str, grpc.aio.Channel] = {}

    @cached_property
    def tenants(self) -> "TenantServiceAsyncStub":
        """Tenants, kept by the registry."""
        return TenantServiceStub(self.channel("registry"))

    @cached_property
    def keys(self) -> "ApiKeyServiceAsyncStub":
        """API keys, kept by the registry."""
        return ApiKeyServiceStub(self.channel("registry"))

    @cached_property
    def agents(self) -> "AgentServiceAsyncStub":
        """Agents, kept by the registry."""
        return AgentServiceStub(self.channel("registry"))

    @cached_property
    def tools(self) -> "ToolServiceAsyncStub":
        """Tools, kept by the registry."""
        return ToolServiceStub(self.channel("registry"))

    @cached_property
    def rollouts(self) -> "RolloutServiceAsyncStub":
        """Rollouts of agents, kept by the registry."""
        return RolloutServiceStub(self.channel("registry"))

    @cached_property
    def sessions(self) -> "SessionServiceAsyncStub":
        """Sessions."""
        return SessionServiceStub(self.channel("session"))

    @cached_property
    def blobs(self) -> "BlobServiceAsyncStub":
        """What is too large for a message, kept by the session service."""
        return BlobServiceStub(self.channel("session"))

    @cached_property
    def memories(self) -> "MemoryServiceAsyncStub":
        """Memories."""
        return MemoryServiceStub(self.channel("memory"))

    @cached_property
    def embedding_models(self) -> "EmbeddingModelServiceAsyncStub":
        """The models that memories are embedded with, kept by the memory service."""
        return EmbeddingModelServiceStub(self.channel("memory"))

    @cached_property
    def activities(self) -> "ActivityServiceAsyncStub":
        """The audit."""
        return ActivityServiceStub(self.channel("activity"))

    @cached_property
    def runs(self) -> "RunServiceAsyncStub":
        """Runs, driven by the gateway."""
        return RunServiceStub(self.channel("gateway"))

    @cached_property
    def inference(self) -> "InferenceServiceAsyncStub":
        """Models, asked by the gateway."""
        return InferenceServiceStub(self.channel("gateway"))

    def channel(self, service: str) -> grpc.aio.Channel:
        """Gives the channel to a service."""
        if service not in self._channels:
            self._channels[service] = connect(
                self._connection.addresses[service],
                telemetry=self._telemetry,
                tls=self._connection.tls,
                credential=self._connection.credential,
                instrumented=True,
            )
        return self._channels[service]

    async def close(self) -> None:
        """Closes what was opened."""
        for channel in self._channels.values():
            await channel.close()


@asynccontextmanager
async def services(connection: Connection, *, span_exporter: SpanExporter | None = None) -> AsyncIterator[Services]:
    """Opens the services for a block; what they refuse comes out as MinionError with the reason that they gave."""
    # A span that nobody records tells every service after it not to record either: a person's own calls are traced.
    telemetry = Telemetry.start("cli", load(TelemetrySettings), span_exporters=[span_exporter or _Nowhere()])
    opened = Services(connection, telemetry)
    try:
        yield opened
    except grpc.aio.AioRpcError as error:
        raise refusal(error) from error
    finally:
        await opened.close()
        await asyncio.to_thread(telemetry.shutdown)


def call(work: Callable[[Services], Awaitable[_T]], *, operator: bool = False) -> _T:
    """Runs one command's calls on an event loop of its own, against the services that `discover` finds."""

    async def main() -> _T:
        async with services(discover(operator=operator)) as opened:
            return await work(opened)

    return asyncio.run(main())


def refusal(error: grpc.aio.AioRpcError) -> MinionError:
    """Gives a service's answer in its own words; one that can't be reached is said so, with what to do."""
    reason, message = peer_errors.reason_of(error), error.details() or ""
    if not reason and error.code() is grpc.StatusCode.UNAVAILABLE:
        hint = next(hint for said, hint in _HINTS if said in message)
        return MinionError(f"No service answers there; {hint} ({message})", reason="SERVICE_UNREACHABLE")
    # What the message leaves to ErrorInfo, such as which id it was, is all that a person has to go by.
    found = peer_errors.metadata_of(error)
    left = [f"{name} {found[name]}" for name in found if name not in _FOR_PROGRAMS and not _told(found[name], message)]
    if left:
        message = f"{message.removesuffix('.')} ({', '.join(left)})."
    return MinionError(message, reason=reason or error.code().name)


def _told(value: str, message: str) -> bool:
    return value.casefold() in message.casefold()


class _Nowhere(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        del spans
        return SpanExportResult.SUCCESS
