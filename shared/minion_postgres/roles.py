"""The schemas of the deployment and the two roles that each has."""

from dataclasses import dataclass
from typing import Final

# One schema a service, of the service's own name.
SCHEMAS: Final = ("registry", "session", "memory", "activity", "gateway")
# Reads the server's statistics for Prometheus, and no row of anybody's.
MONITOR: Final = "minion_monitor"


@dataclass(frozen=True, slots=True)
class Roles:
    """The database roles of one service."""

    owner: str  # migrations and maintenance; owns every object of the schema
    app: str  # what the service runs as; no DDL, bound by row-level security


def roles(service: str) -> Roles:
    """Names the roles of a service: `minion_<service>_owner` and `minion_<service>_app`."""
    return Roles(owner=f"minion_{service}_owner", app=f"minion_{service}_app")
