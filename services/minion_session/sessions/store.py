"""Sessions in Postgres."""

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from uuid import UUID

from minion_postgres import Database, Record, Transaction, queries

from minion_session.sessions.domain import NewSession, Session, SessionFilter, SessionStatus

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
    """Reads and writes sessions; each method is one statement."""

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

    async def close(self, transaction: Transaction, session_id: UUID) -> Session | None:
        """Closes a session that is active; None when it isn't, or when there is none."""
        row = await transaction.fetch_one(_QUERIES.close_session, transaction.tenant_id, session_id)
        return session_from_row(row) if row is not None else None

    async def current(self, transaction: Transaction, session_id: UUID) -> Session | None:
        """Reads a session inside a transaction, if there is one."""
        row = await transaction.fetch_one(_QUERIES.get_session, transaction.tenant_id, session_id)
        return session_from_row(row) if row is not None and row["session_id"] is not None else None

    async def list(
        self, transaction: Transaction, wanted: SessionFilter, *, before: Place | None, page_size: int
    ) -> tuple[tuple[Session, ...], bool]:
        """Reads a page of sessions, newest first, less than 3 MiB of them; tells too whether there are more."""
        time, session_id = before or _NEWEST
        status = wanted.status.value if wanted.status else None
        page = (transaction.tenant_id, time, session_id, status, page_size + 1)
        if wanted.user_id is not None:
            rows = await transaction.fetch(_QUERIES.list_sessions_of_user, *page, wanted.user_id, wanted.agent_id)
        elif wanted.agent_id is not None:
            rows = await transaction.fetch(_QUERIES.list_sessions_of_agent, *page, wanted.agent_id)
        else:
            rows = await transaction.fetch(_QUERIES.list_sessions, *page)
        kept = [session_from_row(row) for row in rows[:page_size] if row["bytes"] <= PAGE_BYTES]
        return tuple(kept), len(kept) < len(rows)

    async def count_active(self) -> int:
        """Counts the sessions of all tenants that take messages: exactly to 100,000, then by estimate."""
        return int(await self._database.fetch_value(_QUERIES.count_active_sessions, _COUNTED))


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
        metadata=row[metadata],
        parent_session_id=row["parent_session_id"],
        fork_sequence=row["fork_sequence"],
    )
