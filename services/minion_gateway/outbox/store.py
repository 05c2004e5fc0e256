"""The outbox in Postgres."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from minion_postgres import Database, queries

from minion_gateway.outbox.domain import Activity, Waiting, from_stored

_QUERIES = queries.load(__package__)


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the relay is behind."""

    waiting: int
    seconds: float


class OutboxStore:
    """The audit rows of all tenants that wait to be sent."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, tenant_id: UUID, principal: str, activity: Activity) -> None:
        """Writes one row down, outside of any run."""
        await self._database.execute(_QUERIES.record_audit, tenant_id, [activity.row(principal)])

    async def claim(self, limit: int, hold: timedelta) -> dict[UUID, list[UUID]]:
        """Takes rows that are due and keeps other replicas off them; returns their ids by tenant."""
        claimed: dict[UUID, list[UUID]] = defaultdict(list)
        for row in await self._database.fetch(_QUERIES.claim_outbox, limit, hold):
            claimed[row["tenant_id"]].append(row["activity_id"])
        return dict(claimed)

    async def read(self, tenant_id: UUID, ids: Sequence[UUID]) -> list[Waiting]:
        """Returns rows of a tenant."""
        rows = await self._database.fetch(_QUERIES.read_outbox, tenant_id, ids)
        return [Waiting(row["principal"], from_stored(row["payload"])) for row in rows]

    async def delete(self, tenant_id: UUID, ids: Sequence[UUID]) -> None:
        """Deletes rows that the activity service has acknowledged."""
        await self._database.execute(_QUERIES.delete_outbox, tenant_id, ids)

    async def defer(self, tenant_id: UUID, ids: Sequence[UUID], pause: timedelta, *, refused: bool) -> None:
        """Puts rows off."""
        await self._database.execute(_QUERIES.defer_outbox, tenant_id, ids, pause, refused)

    async def lag(self) -> Lag:
        """Says how far the relay is behind."""
        row = await self._database.fetch_one(_QUERIES.outbox_lag)
        assert row is not None
        return Lag(row["waiting"], row["seconds"])
