"""What a deployment decides about the registry."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import ClassVar

from minion_audit.settings import AuditSettings
from minion_grpc.settings import ServerSettings
from minion_postgres import DatabaseSettings
from minion_settings import Fault, relation
from pydantic import Field

_A2A_URL = re.compile(r"https?://[^\s{}/@]+(/[^\s{}]*)?/[^\s{}/]*\{agent_id\}[^\s{}]*")


class RegistrySettings(ServerSettings, DatabaseSettings, AuditSettings):
    """The registry."""

    service: ClassVar[str] = "registry"

    port: int = Field(default=50051, ge=0, le=65_535, description="Port of the gRPC server; 0 picks a free one.")
    operations_port: int = Field(
        default=9051, ge=0, le=65_535, description="Port of /metrics, /healthz and /readyz; 0 picks a free one."
    )
    rollout_check_seconds: float = Field(
        default=5.0,
        ge=0.05,
        le=30,
        description="Seconds between two looks at the figures of a running rollout.",
    )
    watch_sync_seconds: float = Field(
        default=10.0,
        ge=0.05,
        # Other services take a feed that is silent for 25 s for dead.
        le=20,
        description="Seconds of silence after which a watch is told that it is synced.",
    )
    changes_kept_days: float = Field(
        default=7.0, ge=1, le=365, description="Days for which a watch can be resumed after it was cut off."
    )
    purge_seconds: float = Field(
        default=3_600.0, ge=0.05, le=86_400, description="Seconds between two removals of old changes and request ids."
    )

    a2a_url: str = Field(
        default="",
        max_length=2_000,
        description="Where clients reach an agent by A2A, as https://agents.example/a2a/{agent_id}, for its card. "
        "Empty: cards name no interface.",
    )

    @relation
    def _agents_have_an_address(self) -> Iterator[Fault]:
        """Yields an address of agents that is none."""
        if self.a2a_url and not _A2A_URL.fullmatch(self.a2a_url):
            yield Fault(self.variable("a2a_url"), "must be an http or https URL that holds {agent_id} once")

    @property
    def changes_kept(self) -> timedelta:
        """How long a watch can be resumed after it was cut off."""
        return timedelta(days=self.changes_kept_days)
