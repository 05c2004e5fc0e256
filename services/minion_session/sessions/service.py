"""What callers do with sessions."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from minion_auth import tenant
from minion_errors import AlreadyExists
from minion_postgres import Idempotent, Key, Transaction, pages
from uuid_utils.compat import uuid7

from minion_session.sessions.domain import (
    LockedSession,
    NewSession,
    Session,
    SessionChanges,
    SessionFilter,
    SessionPage,
    SessionStatus,
    held,
    not_found,
)
from minion_session.sessions.store import SessionStore

_ONCE = Idempotent(Session, schema="session")
_DELETED = Idempotent(type(None), schema="session")
Change = Callable[[Transaction, LockedSession], Awaitable[Session]]


class Sessions:
    """The life of sessions, in the caller's tenant."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def create(self, new: NewSession, key: Key | None) -> Session:
        """Opens a session.

        Raises:
            AlreadyExists: the proposed id is taken (`SESSION_ID_TAKEN`).
        """
        # What is stored for a replay holds the user's content: erasure finds it by its subject.
        key = replace(key, subject=new.user_id) if key else None
        async with self._store.transaction(tenant()) as transaction:
            return await _ONCE.once(transaction, key, lambda: self._create(transaction, new))

    async def get(self, session_id: UUID) -> Session:
        """Gives a session.

        Raises:
            NotFound: there is none (`SESSION_NOT_FOUND`).
        """
        session = await self._store.get(tenant(), session_id)
        if session is None:
            raise not_found(session_id)
        return session

    async def list(self, wanted: SessionFilter, *, page_size: int, page_token: str) -> SessionPage:
        """Lists sessions, newest first.

        Raises:
            InvalidArgument: the token is not of this list (`PAGE_TOKEN_INVALID`).
        """
        filters = {
            "agent_id": str(wanted.agent_id) if wanted.agent_id else None,
            "user_id": wanted.user_id,
            "status": wanted.status.value if wanted.status else None,
        }
        before = None
        if page_token:
            time, session_id = pages.decode(page_token, filters, (datetime, UUID))
            assert isinstance(time, datetime)
            assert isinstance(session_id, UUID)
            before = (time, session_id)
        sessions, more = await self._store.list(tenant(), wanted, before=before, page_size=page_size)
        last = sessions[-1] if more else None
        return SessionPage(sessions, pages.encode((last.create_time, last.session_id), filters) if last else "")

    async def update(self, session_id: UUID, changes: SessionChanges, etag: str, key: Key | None) -> Session:
        """Changes what a session is called and what the caller keeps with it.

        Raises:
            NotFound: there is none (`SESSION_NOT_FOUND`).
            Aborted: it changed since it was read (`ETAG_MISMATCH`).
            FailedPrecondition: it is archived (`SESSION_STATUS_FORBIDS`).
        """

        async def write(transaction: Transaction, locked: LockedSession) -> Session:
            session = locked.session
            session.check_etag(etag)
            session.check_status(SessionStatus.ACTIVE, SessionStatus.CLOSED, SessionStatus.EXPIRED, wanted="UPDATED")
            display_name = session.display_name if changes.display_name is None else changes.display_name
            metadata = session.metadata if changes.metadata is None else changes.metadata
            return await self._store.update(transaction, session_id, display_name, metadata)

        return await self._change(session_id, key, write)

    async def extend(self, session_id: UUID, ttl: timedelta | None, key: Key | None) -> Session:
        """Gives a session that is active or expired another time to live from now on; None is for ever.

        Raises:
            NotFound: there is none (`SESSION_NOT_FOUND`).
            FailedPrecondition: it is closed or archived (`SESSION_STATUS_FORBIDS`).
        """

        async def write(transaction: Transaction, locked: LockedSession) -> Session:
            locked.session.check_status(SessionStatus.ACTIVE, SessionStatus.EXPIRED, wanted="ACTIVE")
            return await self._store.extend(transaction, session_id, ttl)

        return await self._change(session_id, key, write)

    async def close(self, session_id: UUID, key: Key | None) -> Session:
        """Closes a session; one that isn't active stays as it is.

        Raises:
            NotFound: there is none (`SESSION_NOT_FOUND`).
        """

        async def write(transaction: Transaction, locked: LockedSession) -> Session:
            if locked.session.status is not SessionStatus.ACTIVE:
                return locked.session
            return await self._store.close(transaction, session_id)

        return await self._change(session_id, key, write)

    async def archive(self, session_id: UUID, key: Key | None) -> Session:
        """Archives a session that is closed or expired; one that is archived stays as it is.

        Raises:
            NotFound: there is none (`SESSION_NOT_FOUND`).
            FailedPrecondition: it is active (`SESSION_STATUS_FORBIDS`), or a run holds it (`SESSION_HELD`).
        """

        async def write(transaction: Transaction, locked: LockedSession) -> Session:
            if locked.session.status is SessionStatus.ARCHIVED:
                return locked.session
            locked.session.check_status(SessionStatus.CLOSED, SessionStatus.EXPIRED, wanted="ARCHIVED")
            if locked.holder is not None:
                raise held(session_id, locked.holder)
            return await self._store.archive(transaction, session_id)

        return await self._change(session_id, key, write)

    async def delete(self, session_id: UUID, key: Key | None) -> None:
        """Deletes a session with all that hangs on it, whatever its status.

        Raises:
            NotFound: there is none (`SESSION_NOT_FOUND`).
        """

        async def write() -> None:
            if not await self._store.delete(transaction, session_id):
                raise not_found(session_id)

        async with self._store.transaction(tenant()) as transaction:
            await _DELETED.once(transaction, key, write)

    async def _change(self, session_id: UUID, key: Key | None, change: Change) -> Session:
        """Changes a session under its lock, once for each key."""

        async def write() -> Session:
            locked = await self._store.lock(transaction, session_id)
            if locked is None:
                raise not_found(session_id)
            return await change(transaction, locked)

        async with self._store.transaction(tenant()) as transaction:
            if key is not None:
                known = await self._store.current(transaction, session_id)
                key = replace(key, subject=known.user_id if known else None)
            return await _ONCE.once(transaction, key, write)

    async def _create(self, transaction: Transaction, new: NewSession) -> Session:
        session_id = new.session_id or uuid7()
        session = await self._store.insert(transaction, session_id, new)
        if session is None:
            raise AlreadyExists(
                "Another session has this id.", reason="SESSION_ID_TAKEN", metadata={"session_id": str(session_id)}
            )
        return session
