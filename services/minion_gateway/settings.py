"""What a deployment decides about the gateway."""

from typing import ClassVar

from minion_audit.settings import AuditSettings
from minion_grpc.settings import ServerSettings
from minion_postgres import DatabaseSettings
from minion_settings import Address
from pydantic import Field

from minion_gateway.inference.settings import InferenceSettings


class GatewaySettings(ServerSettings, DatabaseSettings, AuditSettings, InferenceSettings):
    """The gateway."""

    service: ClassVar[str] = "gateway"

    port: int = Field(default=50050, ge=0, le=65_535, description="Port of the gRPC server; 0 picks a free one.")
    operations_port: int = Field(
        default=9050, ge=0, le=65_535, description="Port of /metrics, /healthz and /readyz; 0 picks a free one."
    )
    session_address: Address = Field(default="localhost:50052", description="Where the session service answers.")
    memory_address: Address = Field(default="localhost:50053", description="Where the memory service answers.")
    streaming_enabled: bool = Field(
        default=True,
        description="Whether answers are streamed; off, StreamRun and StreamComplete are UNIMPLEMENTED, saying so.",
    )
    lease_seconds: float = Field(
        default=4.0,
        ge=0.1,
        le=60,
        description="How long a run stays with a replica that died. Leases are renewed at thirds of it.",
    )
    maximum_recoveries: int = Field(
        default=5, ge=0, le=100, description="How often a run is taken over from dead replicas before it is FAILED."
    )
    maximum_runs: int = Field(
        default=500, ge=1, le=100_000, description="Runs that one replica drives at once; further ones are refused."
    )
    event_poll_seconds: float = Field(
        default=0.15,
        ge=0.01,
        le=10,
        description="Seconds between two looks of a watcher at a run that another replica drives.",
    )
    summary_input_tokens: int = Field(
        default=12_000,
        ge=1_000,
        le=1_000_000,
        description="The most tokens of one question for a summary; what is longer is summarized in several.",
    )
    summary_poll_seconds: float = Field(
        default=2.0,
        ge=0.01,
        le=60,
        description="Seconds between two looks for summaries that another replica left; own ones begin at once.",
    )
