"""What callers do with sessions."""

from datetime import datetime
from uuid import UUID

from minion_auth import tenant
from minion_errors import AlreadyExists
from minion_postgres import Idempotent, Key, Transaction, pages
from uuid_utils.compat import uuid7

from minion_session.sessions.domain import NewSession, Session, SessionFilter, SessionPage, not_found
from minion_session.sessions.store import SessionStore

_ONCE = Idempotent(Session, schema="session")


class Sessions:
    """The life of sessions, in the caller's tenant."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def create(self, new: NewSession, key: Key | None) -> Session:
        """Opens a session.

        Raises:
            AlreadyExists: the proposed id is taken (`SESSION_ID_TAKEN`).
        """
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
        async with self._store.transaction(tenant()) as transaction:
            sessions, more = await self._store.list(transaction, wanted, before=before, page_size=page_size)
        last = sessions[-1] if more else None
        return SessionPage(sessions, pages.encode((last.create_time, last.session_id), filters) if last else "")

    async def close(self, session_id: UUID, key: Key | None) -> Session:
        """Closes a session; one that is closed or expired stays as it is.

        Raises:
            NotFound: there is none (`SESSION_NOT_FOUND`).
        """
        async with self._store.transaction(tenant()) as transaction:
            return await _ONCE.once(transaction, key, lambda: self._close(transaction, session_id))

    async def _create(self, transaction: Transaction, new: NewSession) -> Session:
        session_id = new.session_id or uuid7()
        session = await self._store.insert(transaction, session_id, new)
        if session is None:
            raise AlreadyExists(
                "Another session has this id.", reason="SESSION_ID_TAKEN", metadata={"session_id": str(session_id)}
            )
        return session

    async def _close(self, transaction: Transaction, session_id: UUID) -> Session:
        closed = await self._store.close(transaction, session_id)
        if closed is None:
            closed = await self._store.current(transaction, session_id)
        if closed is None:
            raise not_found(session_id)
        return closed
