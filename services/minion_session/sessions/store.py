"""Sessions in Postgres."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from minion_postgres import Database, Query, Record, Transaction, queries

from minion_session.sessions.domain import LockedSession, NewSession, Session, SessionFilter, SessionStatus

_QUERIES = queries.load(__package__)
_STATUSES = {status.value: status for status in SessionStatus}
# Where a session stands in a list: its creation, its id.
Place = tuple[datetime, UUID]
_NEWEST: Place = (datetime.max.replace(tzinfo=UTC), UUID(int=2**128 - 1))
# What a reply may take, well below the 4 MiB that clients accept.
PAGE_BYTES = 3 * 1024 * 1024
# Beyond it the count of active sessions is an estimate.
_COUNTED = 100_000


class SessionStore:
    """Reads and writes sessions; each method is one statement. What changes a session tells of it in the feed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def transaction(self, tenant_id: UUID) -> AbstractAsyncContextManager[Transaction]:
        """Opens a transaction in a tenant."""
        return self._database.transaction(tenant_id)

    async def get(self, tenant_id: UUID, session_id: UUID) -> Session | None:
        """Reads a session, if there is one."""
        row = await self._database.fetch_one(_QUERIES.get_session, tenant_id, session_id)
        return session_from_row(row) if row is not None and row["session_id"] is not None else None

    async def insert(self, transaction: Transaction, session_id: UUID, new: NewSession) -> Session | None:
        """Stores a session; None when its id is taken."""
        row = await transaction.fetch_one(
            _QUERIES.create_session,
            transaction.tenant_id,
            session_id,
            new.agent_id,
            new.user_id,
            new.display_name,
            new.metadata,
            new.ttl,
        )
        return session_from_row(row) if row is not None else None

    async def current(self, transaction: Transaction, session_id: UUID) -> Session | None:
        """Reads a session inside a transaction, if there is one."""
        row = await transaction.fetch_one(_QUERIES.get_session, transaction.tenant_id, session_id)
        return session_from_row(row) if row is not None and row["session_id"] is not None else None

    async def lock(self, transaction: Transaction, session_id: UUID) -> LockedSession | None:
        """Reads a session that nobody else changes until the transaction ends, if there is one."""
        row = await transaction.fetch_one(_QUERIES.lock_session, transaction.tenant_id, session_id)
        return LockedSession(session_from_row(row), row["holder"]) if row is not None else None

    async def update(
        self, transaction: Transaction, session_id: UUID, display_name: str, metadata: Mapping[str, Any]
    ) -> Session:
        """Changes a locked session."""
        return await self._changed(transaction, _QUERIES.update_session, session_id, display_name, metadata)

    async def extend(self, transaction: Transaction, session_id: UUID, ttl: timedelta | None) -> Session:
        """Gives a locked session another time to live; None is for ever."""
        return await self._changed(transaction, _QUERIES.extend_session, session_id, ttl)

    async def close(self, transaction: Transaction, session_id: UUID) -> Session:
        """Closes a locked session."""
        return await self._changed(transaction, _QUERIES.close_session, session_id)

    async def archive(self, transaction: Transaction, session_id: UUID) -> Session:
        """Archives a locked session."""
        return await self._changed(transaction, _QUERIES.archive_session, session_id)

    async def delete(self, transaction: Transaction, session_id: UUID) -> bool:
        """Deletes a session with all that hangs on it; False when there is none."""
        return bool(await transaction.fetch_value(_QUERIES.delete_session, session_id))

    async def list(
        self, tenant_id: UUID, wanted: SessionFilter, *, before: Place | None, page_size: int
    ) -> tuple[tuple[Session, ...], bool]:
        """Reads a page of sessions, newest first, less than 3 MiB of them; tells too whether there are more."""
        time, session_id = before or _NEWEST
        status = wanted.status.value if wanted.status else None
        rows = await self._database.fetch(
            _QUERIES.list_sessions,
            tenant_id,
            time,
            session_id,
            status,
            wanted.user_id,
            wanted.agent_id,
            page_size + 1,
        )
        kept = [session_from_row(row) for row in rows[:page_size] if row["bytes"] <= PAGE_BYTES]
        return tuple(kept), len(kept) < len(rows)

    async def count_active(self) -> int:
        """Counts the sessions of all tenants that take messages: exactly to 100,000, then by estimate."""
        return int(await self._database.fetch_value(_QUERIES.count_active_sessions, _COUNTED))

    async def _changed(self, transaction: Transaction, query: Query, session_id: UUID, *values: object) -> Session:
        row = await transaction.fetch_one(query, transaction.tenant_id, session_id, *values)
        assert row is not None
        return session_from_row(row)


def session_from_row(row: Record, *, metadata: str = "metadata", create_time: str = "create_time") -> Session:
    """Reads a session from a row; a row that holds a message too names these two columns otherwise."""
    return Session(
        session_id=row["session_id"],
        agent_id=row["agent_id"],
        user_id=row["user_id"],
        display_name=row["display_name"],
        status=_STATUSES[row["status"]],
        last_sequence=row["last_sequence"],
        create_time=row[create_time],
        update_time=row["update_time"],
        expire_time=row["expire_time"],
        close_time=row["close_time"],
        archive_time=row["archive_time"],
        metadata=row[metadata],
        version=row["version"],
    )
