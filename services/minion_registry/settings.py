"""What a deployment decides about the registry."""

from datetime import timedelta
from typing import ClassVar

from minion_grpc.settings import ServerSettings
from minion_postgres import DatabaseSettings
from pydantic import Field


class RegistrySettings(ServerSettings, DatabaseSettings):
    """The registry."""

    service: ClassVar[str] = "registry"

    port: int = Field(default=50051, ge=0, le=65_535, description="Port of the gRPC server; 0 picks a free one.")
    operations_port: int = Field(
        default=9051, ge=0, le=65_535, description="Port of /metrics, /healthz and /readyz; 0 picks a free one."
    )
    activity_address: str = Field(
        default="localhost:50054",
        description="Where the activity service answers, which keeps the figures that rollouts are judged by.",
    )
    rollout_check_seconds: float = Field(
        default=5.0,
        ge=0.05,
        le=30,
        description="Seconds between two looks at the figures of a running rollout.",
    )
    watch_sync_seconds: float = Field(
        default=10.0, ge=0.05, le=300, description="Seconds of silence after which a watch is told that it is synced."
    )
    changes_kept_days: float = Field(
        default=7.0, ge=1, le=365, description="Days for which a watch can be resumed after it was cut off."
    )
    purge_seconds: float = Field(
        default=3_600.0, ge=0.05, le=86_400, description="Seconds between two removals of old changes and request ids."
    )

    @property
    def changes_kept(self) -> timedelta:
        """How long a watch can be resumed after it was cut off."""
        return timedelta(days=self.changes_kept_days)
