"""Change feeds: what happened to a tenant's resources, in an order that loses nothing.

A sequence number is no cursor: a transaction that took number 5 may commit after number 6 was read, and 5 would be
passed over for ever. So rows carry the id of their transaction, readers take only rows below
`pg_snapshot_xmin(pg_current_snapshot())` (of every transaction below it, all that will ever be there is there), and the
cursor is the pair (transaction, row).

A feed may be followed for one tenant or, by services, for all: the latter through a SECURITY DEFINER function that
gives ids and kinds alone. Changes are kept for a time; a cursor says when it was good, so that one older than that is
refused rather than passing over what was purged.

A writing transaction anywhere in the cluster holds all feeds back until it ends; `statement_timeout` and
`idle_in_transaction_session_timeout` bound that. Transaction ids belong to a cluster: after restoring a dump into
another, set `xid` of the restored rows to '0' and let watchers begin anew.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from minion_errors import Aborted

from minion_postgres import pages
from minion_postgres.database import Database
from minion_postgres.parts import part
from minion_postgres.queries import Query

_BATCH: Final = 500
_PURGE_BATCH: Final = 5_000
_LAST_ID: Final = 2**63 - 1
# How much longer changes are kept than cursors are taken: for clocks that differ and transactions that take their time.
_MARGIN: Final = timedelta(hours=1)
_Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened; go on after it with its cursor."""

    cursor: str
    tenant_id: UUID
    resource_id: UUID
    kind: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Synced:
    """Everything that happened so far was yielded; go on from here with its cursor."""

    cursor: str


class ChangeFeed:
    """The feed of one table made by `table_sql`."""

    def __init__(
        self,
        database: Database,
        *,
        schema: str,
        feed: str = "changes",
        interval: float,
        kept: timedelta | None = None,
    ) -> None:
        """`interval` is the seconds between two looks while nothing happens; `kept` how long a change can be read.

        With `kept` None changes stay for ever; else a worker calls `purge`.
        """
        self._database = database
        self._name = f"{schema}.{feed}"
        self._interval = interval
        self._kept = kept
        self._read = Query(
            f"SELECT * FROM {schema}.read_{feed}($1, $2, $3, $4)",  # noqa: S608 - names of ours
            name=f"read_{feed}",
            description="Reads the changes of a tenant after a cursor.",
        )
        self._read_all = Query(
            f"SELECT * FROM {schema}.read_all_{feed}($1, $2, $3)",  # noqa: S608 - names of ours
            name=f"read_all_{feed}",
            description="Reads the changes of all tenants after a cursor.",
        )
        self._purge = Query(
            f"SELECT {schema}.purge_{feed}($1, $2)",
            name=f"purge_{feed}",
            description="Deletes old changes of all tenants.",
        )

    async def read(self, tenant_id: UUID | None, cursor: str, *, limit: int = _BATCH) -> Sequence[Change]:
        """Returns the next changes after a cursor, at most `limit`; the empty cursor is the beginning.

        The tenant None stands for all tenants. Raises InvalidArgument (INVALID_FIELDS) when the cursor is malformed or
        another tenant's or feed's, and Aborted (CURSOR_EXPIRED) when changes after it may have been purged.
        """
        found = await self._after(tenant_id, self._decode(tenant_id, cursor), limit)
        return [change for _, change in found]

    async def head(self, tenant_id: UUID | None) -> str:
        """Returns the cursor of now: whoever takes it, then lists, then follows from it, misses nothing."""
        xmin = await self._database.fetch_value(
            Query("SELECT pg_snapshot_xmin(pg_current_snapshot())", name="feed_head", description="Now, for feeds.")
        )
        return self._encode(tenant_id, (int(xmin) - 1, _LAST_ID), datetime.now(UTC))

    def check(self, tenant_id: UUID | None, cursor: str) -> None:
        """Raises what `read` would raise of a cursor, before anything is read."""
        self._decode(tenant_id, cursor)

    async def follow(
        self, tenant_id: UUID | None, cursor: str, *, silence: float | None = None
    ) -> AsyncGenerator[Change | Synced, None]:
        """Yields the changes after a cursor, then those to come, for as long as it is asked.

        With `silence` it yields Synced whenever nothing happened for so many seconds. Raises as `read` does, and
        Unavailable when the database goes away: go on with the last cursor seen.
        """
        position = self._decode(tenant_id, cursor)
        clock = asyncio.get_running_loop().time
        spoke = clock()
        while True:
            looked = datetime.now(UTC)
            found = await self._after(tenant_id, position, _BATCH)
            for place, change in found:
                yield change
                position, spoke = place, clock()
            if not found and silence is not None and clock() - spoke >= silence:
                yield Synced(self._encode(tenant_id, position, looked))
                spoke = clock()
            if len(found) < _BATCH:
                await asyncio.sleep(self._interval)

    async def purge(self) -> int:
        """Deletes the changes of all tenants that are older than they are kept, in batches; returns how many went."""
        total = 0
        while self._kept is not None:
            gone = int(await self._database.fetch_value(self._purge, self._kept + _MARGIN, _PURGE_BATCH))
            total += gone
            if gone < _PURGE_BATCH:
                break
        return total

    async def _after(
        self, tenant_id: UUID | None, position: _Position, limit: int
    ) -> Sequence[tuple[_Position, Change]]:
        if tenant_id is None:
            rows = await self._database.fetch(self._read_all, *position, limit)
        else:
            rows = await self._database.fetch(self._read, tenant_id, *position, limit)
        return [
            (
                (row["xid"], row["id"]),
                Change(
                    cursor=self._encode(tenant_id, (row["xid"], row["id"]), row["create_time"]),
                    tenant_id=row["tenant_id"] if tenant_id is None else tenant_id,
                    resource_id=row["resource_id"],
                    kind=row["kind"],
                    create_time=row["create_time"],
                ),
            )
            for row in rows
        ]

    def _encode(self, tenant_id: UUID | None, position: _Position, good: datetime) -> str:
        return pages.encode((*position, int(good.timestamp())), self._filters(tenant_id))

    def _decode(self, tenant_id: UUID | None, cursor: str) -> _Position:
        if not cursor:
            return 0, 0
        xid, row, good = pages.decode(
            cursor, self._filters(tenant_id), (int, int, int), reason="INVALID_FIELDS", field="cursor"
        )
        if not (isinstance(xid, int) and isinstance(row, int) and isinstance(good, int) and xid >= 0):
            raise pages.refused("INVALID_FIELDS", "cursor")
        if self._kept is not None and good < (datetime.now(UTC) - self._kept).timestamp():
            raise Aborted(
                "Changes after this cursor are no longer kept: read all, then watch anew.", reason="CURSOR_EXPIRED"
            )
        return xid, row

    def _filters(self, tenant_id: UUID | None) -> dict[str, object]:
        return {"feed": self._name, "tenant": None if tenant_id is None else str(tenant_id)}


def table_sql(schema: str, feed: str = "changes") -> str:
    """The feed's table, for a migration of the schema."""
    return part("feed.sql", "table", schema=schema, feed=feed)


def functions_sql(schema: str, feed: str = "changes") -> str:
    """The feed's functions, for the schema's functions.sql."""
    return part("feed.sql", "functions", schema=schema, feed=feed)
