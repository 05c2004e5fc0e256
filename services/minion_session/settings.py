"""What a deployment decides about the session service."""

from typing import ClassVar

from minion_grpc.settings import ServerSettings
from minion_postgres import DatabaseSettings
from pydantic import Field


class SessionSettings(ServerSettings, DatabaseSettings):
    """The session service."""

    service: ClassVar[str] = "session"

    port: int = Field(default=50052, ge=0, le=65_535, description="Port of the gRPC server; 0 picks a free one.")
    operations_port: int = Field(
        default=9052, ge=0, le=65_535, description="Port of /metrics, /healthz and /readyz; 0 picks a free one."
    )
    active_count_seconds: float = Field(
        default=15.0, ge=0.05, le=3_600, description="Seconds between two counts for the gauge active_sessions."
    )
