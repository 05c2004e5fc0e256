"""The outbox in Postgres."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from minion_postgres import Database, Query

from minion_audit.domain import Unreadable, Waiting, from_stored


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the relay is behind."""

    waiting: int
    seconds: float


class OutboxStore:
    """The audit rows of all tenants that wait to be sent."""

    def __init__(self, database: Database, *, schema: str) -> None:
        self._database = database
        self._claim = _query(schema, "tenant_id, activity_id", "claim_outbox($1, $2)", "Takes audit rows that are due.")
        self._read = _query(schema, "activity_id, principal, payload", "read_outbox($1, $2)", "Audit rows of a tenant.")
        self._delete = _query(schema, "1", "delete_outbox($1, $2)", "Deletes rows that were acknowledged.")
        self._defer = _query(schema, "1", "defer_outbox($1, $2, $3, $4)", "Puts rows off.")
        self._lag = _query(schema, "waiting, seconds", "outbox_lag()", "How many rows wait, and for how long.")

    async def claim(self, limit: int, hold: timedelta) -> dict[UUID, list[UUID]]:
        """Takes rows that are due and keeps other replicas off them; returns their ids by tenant."""
        claimed: dict[UUID, list[UUID]] = defaultdict(list)
        for row in await self._database.fetch(self._claim, limit, hold):
            claimed[row["tenant_id"]].append(row["activity_id"])
        return dict(claimed)

    async def read(self, tenant_id: UUID, ids: Sequence[UUID]) -> tuple[list[Waiting], list[Unreadable]]:
        """Returns rows of a tenant, and those that can't be read: one that is spoilt holds up no other."""
        waiting, unreadable = [], []
        for row in await self._database.fetch(self._read, tenant_id, ids):
            try:
                waiting.append(Waiting(row["principal"], from_stored(row["payload"])))
            except ValueError as fault:
                # The fault's own words hold what the row holds, which is for no log.
                unreadable.append(Unreadable(row["activity_id"], type(fault).__name__))
        return waiting, unreadable

    async def delete(self, tenant_id: UUID, ids: Sequence[UUID]) -> None:
        """Deletes rows that the activity service has acknowledged."""
        await self._database.execute(self._delete, tenant_id, ids)

    async def defer(self, tenant_id: UUID, ids: Sequence[UUID], pause: timedelta, *, refused: bool) -> None:
        """Puts rows off."""
        await self._database.execute(self._defer, tenant_id, ids, pause, refused)

    async def lag(self) -> Lag:
        """Says how far the relay is behind."""
        row = await self._database.fetch_one(self._lag)
        assert row is not None
        return Lag(row["waiting"], row["seconds"])


def _query(schema: str, columns: str, call: str, description: str) -> Query:
    return Query(
        f"SELECT {columns} FROM {schema}.{call}",  # noqa: S608 - names of ours
        name=call.partition("(")[0],
        description=description,
    )
