"""What a deployment decides about the session service."""

from datetime import timedelta
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
    watch_sync_seconds: float = Field(
        default=10.0,
        ge=0.05,
        # Other services take a feed that is silent for 25 s for dead.
        le=20,
        description="Seconds of silence after which a watch is told that it is synced.",
    )
    changes_kept_days: float = Field(
        default=7.0, ge=1, le=365, description="Days for which a watch of sessions can be resumed after it was cut off."
    )
    activity_seconds: float = Field(
        default=15.0,
        ge=0.05,
        le=3_600,
        # Read under this name alone: without the service's it would look like one of the activity service.
        validation_alias="MINION_SESSION_ACTIVITY_SECONDS",
        description="Seconds in which a session is told to be active at most once.",
    )
    expiry_seconds: float = Field(
        default=5.0, ge=0.05, le=3_600, description="Seconds between two looks for sessions whose time is up."
    )
    expired_kept: timedelta | None = Field(
        default=None,
        ge=timedelta(0),
        le=timedelta(days=36_500),
        description="How long a session is kept after it expired, as an ISO 8601 duration (P30D). Unset: for ever.",
    )

    @property
    def changes_kept(self) -> timedelta:
        """How long a watch of sessions can be resumed after it was cut off."""
        return timedelta(days=self.changes_kept_days)

    @property
    def activity_pause(self) -> timedelta:
        """The time between two rounds of telling which sessions are active."""
        return timedelta(seconds=self.activity_seconds)

    @property
    def activity_overlap(self) -> timedelta:
        """How far a round looks back behind the last one: longer than an append can take to be committed."""
        return timedelta(seconds=max(60.0, 2 * self.statement_seconds))

    blob_limit_bytes: int = Field(
        default=64 * 1024 * 1024, ge=1, le=1024**3, description="The most bytes that a blob may have."
    )
    upload_kept_seconds: float = Field(
        default=3_600.0,
        ge=1,
        le=86_400,
        description="Seconds after which a blob that stopped coming is dropped, when its replica died with the call.",
    )
