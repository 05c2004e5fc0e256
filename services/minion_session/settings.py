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
    blob_limit_bytes: int = Field(
        default=64 * 1024 * 1024, ge=1, le=1024**3, description="The most bytes that a blob may have."
    )
    upload_kept_seconds: float = Field(
        default=3_600.0,
        ge=1,
        le=86_400,
        description="Seconds after which a blob that stopped coming is dropped, when its replica died with the call.",
    )
