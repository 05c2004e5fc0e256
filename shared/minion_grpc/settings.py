"""What a deployment decides about serving."""

from collections.abc import Iterator
from typing import Literal

from minion_auth.settings import AuthSettings, is_loopback
from minion_settings import Fault, relation
from minion_telemetry.settings import TelemetrySettings
from pydantic import Field

from minion_grpc.tls_settings import TlsSettings

_MTLS_DISTANCE = 100
_LAST_PORT = 65_535


class ServerSettings(AuthSettings, TelemetrySettings, TlsSettings):
    """The gRPC server of a service."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address that the gRPC server listens on.")
    port: int = Field(default=0, ge=0, le=65_535, description="Port of the gRPC server; 0 picks a free one.")
    operations_host: str = Field(
        default="127.0.0.1", min_length=1, description="Address that /metrics, /healthz and /readyz listen on."
    )
    operations_port: int = Field(
        default=0, ge=0, le=65_535, description="Port of /metrics, /healthz and /readyz; 0 picks a free one."
    )
    default_deadline_seconds: float = Field(
        default=30.0, gt=0, le=3_600, description="Deadline of a call that brings none. Streams have none by default."
    )
    drain_notice_seconds: float = Field(
        default=0.0,
        ge=0,
        le=60,
        description="How long a stopping service still takes calls after it reports NOT_SERVING, so that balancers "
        "look away first.",
    )
    drain_seconds: float = Field(
        default=20.0, ge=0, le=600, description="How long a stopping service waits for the calls in hand."
    )
    max_message_bytes: int = Field(
        default=4 * 1024 * 1024, ge=65_536, le=64 * 1024 * 1024, description="Largest request message, in bytes."
    )
    maximum_concurrent_rpcs: int = Field(
        default=1_000,
        ge=1,
        le=1_000_000,
        description="Calls served at once; further ones are refused with RESOURCE_EXHAUSTED.",
    )
    reflection: bool = Field(
        default=True, description="Whether clients such as grpcurl can list the services by reflection."
    )
    event_loop: Literal["uvloop", "asyncio"] = Field(
        default="uvloop", description="Event loop of the process: uvloop (faster) or asyncio (the standard library's)."
    )
    parent_pipe: int | None = Field(
        default=None,
        ge=3,
        description="File descriptor of a pipe from the parent process; when it closes, the service stops.",
    )

    @property
    def effective_mtls_port(self) -> int:
        """The port of mutual TLS: the one that is set, else 100 above the first; 0 picks a free one."""
        if self.mtls_port is not None:
            return self.mtls_port
        return self.port + _MTLS_DISTANCE if self.port else 0

    @property
    def is_open_plain_text(self) -> bool:
        """Whether credentials may cross a network in plain text, unless something before the service sees to TLS."""
        return self.tls_certificate is None and not is_loopback(self.host)

    @relation
    def _no_door_is_open_off_the_loopback(self) -> Iterator[Fault]:
        """Yields authentication that is off where others than this machine can call."""
        if self.auth_mode == "disabled" and not is_loopback(self.host):
            yield Fault(
                self.variable("auth_mode"), f"may be disabled on a loopback host only (the host is {self.host!r})"
            )

    @relation
    def _credentials_can_be_checked(self) -> Iterator[Fault]:
        """Yields `required` with nothing to check by."""
        if self.auth_mode == "required" and self.service_key is None:
            yield Fault(self.variable("service_key"), "is required where the auth mode is required")

    @relation
    def _ports_differ(self) -> Iterator[Fault]:
        """Yields one port for calls and operations."""
        if self.port and self.port == self.operations_port:
            yield Fault(self.variable("operations_port"), f"is {self.port}, and so is {self.variable('port')}")

    @relation
    def _mtls_port_is_free(self) -> Iterator[Fault]:
        """Yields a port of mutual TLS that is another one too, or none."""
        if self.mtls_certificate is None:
            return
        port, variable = self.effective_mtls_port, self.variable("mtls_port")
        if port > _LAST_PORT:
            yield Fault(variable, f"is required: {self.variable('port')} + {_MTLS_DISTANCE} is no port")
        for other in ("port", "operations_port"):
            if port and port == getattr(self, other):
                yield Fault(variable, f"is {port}, and so is {self.variable(other)}")
