"""The gateway's outbox in Postgres, outside of runs: those write their rows with their own changes."""

from uuid import UUID

from minion_audit import Activity
from minion_postgres import Database, queries

_QUERIES = queries.load(__package__)


class InferenceOutboxStore:
    """Writes audit rows down that belong to no run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, tenant_id: UUID, principal: str, activity: Activity) -> None:
        """Writes one row down."""
        await self._database.execute(_QUERIES.record_audit, tenant_id, [activity.row(principal)])
