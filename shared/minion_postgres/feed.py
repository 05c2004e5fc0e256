"""Change feeds: what happened to a tenant's resources, in an order that loses nothing.

A sequence number is no cursor: a transaction that took number 5 may commit after number 6 was read, and 5 would be
passed over for ever. So rows carry the id of their transaction, readers take only rows below
`pg_snapshot_xmin(pg_current_snapshot())` (of every transaction below it, all that will ever be there is there), and the
cursor is the pair (transaction, row).

A writing transaction anywhere in the cluster holds all feeds back until it ends; `statement_timeout` and
`idle_in_transaction_session_timeout` bound that. Transaction ids belong to a cluster: after restoring a dump into
another, set `xid` of the restored rows to '0' and let watchers begin anew.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from minion_postgres import pages
from minion_postgres.database import Database
from minion_postgres.parts import part
from minion_postgres.queries import Query

_BATCH: Final = 500
_LAST_ID: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened; go on after it with its cursor."""

    cursor: str
    resource_id: UUID
    kind: str
    create_time: datetime


class ChangeFeed:
    """The feed of one table made by `table_sql`."""

    def __init__(self, database: Database, *, schema: str, feed: str = "changes", interval: float) -> None:
        """`interval` is the seconds between two looks while nothing happens."""
        self._database = database
        self._name = f"{schema}.{feed}"
        self._interval = interval
        self._read = Query(
            f"SELECT * FROM {schema}.read_{feed}($1, $2, $3, $4)",  # noqa: S608 - names of ours
            name=f"read_{feed}",
            description="Reads the changes after a cursor.",
        )

    async def read(self, tenant_id: UUID, cursor: str, *, limit: int = _BATCH) -> Sequence[Change]:
        """Returns the next changes after a cursor, at most `limit`; the empty cursor is the beginning.

        Raises InvalidArgument (CURSOR_INVALID) when the cursor is malformed or another tenant's or feed's.
        """
        xid, row = self._decode(tenant_id, cursor)
        rows = await self._database.fetch(self._read, tenant_id, xid, row, limit)
        return [
            Change(
                cursor=pages.encode((found["xid"], found["id"]), self._filters(tenant_id)),
                resource_id=found["resource_id"],
                kind=found["kind"],
                create_time=found["create_time"],
            )
            for found in rows
        ]

    async def head(self, tenant_id: UUID) -> str:
        """Returns the cursor of now: whoever takes it, then lists, then follows from it, misses nothing."""
        xmin = await self._database.fetch_value(
            Query("SELECT pg_snapshot_xmin(pg_current_snapshot())", name="feed_head", description="Now, for feeds.")
        )
        return pages.encode((int(xmin) - 1, _LAST_ID), self._filters(tenant_id))

    async def follow(self, tenant_id: UUID, cursor: str) -> AsyncIterator[Change]:
        """Yields the changes after a cursor, then those to come, for as long as it is asked.

        Raises Unavailable when the database goes away: go on with the last cursor seen.
        """
        while True:
            changes = await self.read(tenant_id, cursor)
            for change in changes:
                yield change
                cursor = change.cursor
            if len(changes) < _BATCH:
                await asyncio.sleep(self._interval)

    def _decode(self, tenant_id: UUID, cursor: str) -> tuple[int, int]:
        if not cursor:
            return 0, 0
        xid, row = pages.decode(cursor, self._filters(tenant_id), (int, int), reason="CURSOR_INVALID", field="cursor")
        if not (isinstance(xid, int) and isinstance(row, int) and xid >= 0):
            raise pages.refused("CURSOR_INVALID", "cursor")
        return xid, row

    def _filters(self, tenant_id: UUID) -> dict[str, object]:
        return {"feed": self._name, "tenant": str(tenant_id)}


def table_sql(schema: str, feed: str = "changes") -> str:
    """The feed's table, for a migration of the schema."""
    return part("feed.sql", "table", schema=schema, feed=feed)


def functions_sql(schema: str, feed: str = "changes") -> str:
    """The feed's functions, for the schema's functions.sql."""
    return part("feed.sql", "functions", schema=schema, feed=feed)
