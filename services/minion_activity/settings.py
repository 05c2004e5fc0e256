"""What a deployment decides about the activity service."""

from typing import ClassVar

from minion_grpc.settings import ServerSettings
from minion_postgres import DatabaseSettings
from pydantic import Field


class ActivitySettings(ServerSettings, DatabaseSettings):
    """The activity service."""

    service: ClassVar[str] = "activity"

    port: int = Field(default=50054, ge=0, le=65_535, description="Port of the gRPC server; 0 picks a free one.")
    operations_port: int = Field(
        default=9054, ge=0, le=65_535, description="Port of /metrics, /healthz and /readyz; 0 picks a free one."
    )
    partition_months_ahead: int = Field(
        default=3, ge=1, le=24, description="Months whose partitions are kept ready beyond the current one."
    )
    partition_check_seconds: float = Field(
        default=3_600.0, ge=0.05, le=86_400, description="Seconds between two looks at the partitions."
    )
