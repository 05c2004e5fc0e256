"""What is kept about the telling of activity, in Postgres."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from minion_postgres import Database, queries

from minion_session.changes.domain import ActivityRound

_QUERIES = queries.load(__package__)


class ActivityStore:
    """Finds sessions that have new messages, of all tenants, and tells of them, tenant by tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin_round(self, pause: timedelta) -> ActivityRound | None:
        """Begins a round; None when one began within `pause`, on any replica."""
        row = await self._database.fetch_one(_QUERIES.begin_activity_round, pause)
        return ActivityRound(row["begin_time"], row["since"]) if row is not None else None

    async def pick(self, since: datetime, most: int) -> Mapping[UUID, Sequence[UUID]]:
        """Gives sessions by tenant that have messages since a time which were not told, at most so many."""
        found: dict[UUID, list[UUID]] = defaultdict(list)
        for row in await self._database.fetch(_QUERIES.pick_active, since, most):
            found[row["tenant_id"]].append(row["session_id"])
        return found

    async def tell(self, tenant_id: UUID, sessions: Sequence[UUID]) -> int:
        """Tells that sessions of a tenant are active; returns of how many it was news."""
        return int(await self._database.fetch_value(_QUERIES.tell_active, tenant_id, sessions))

    async def end_round(self, until: datetime) -> None:
        """Notes that all messages before a time were told."""
        await self._database.fetch_value(_QUERIES.end_activity_round, until)
