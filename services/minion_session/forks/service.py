"""What callers do with forks."""

from dataclasses import replace

from minion_auth import tenant
from minion_postgres import Idempotent, Key, Transaction
from uuid_utils.compat import uuid7

from minion_session.forks.domain import NewFork, id_taken, inside_exchange, last_whole, out_of_range
from minion_session.forks.store import ForkStore
from minion_session.sessions.domain import Session, not_found
from minion_session.sessions.store import SessionStore

_ONCE = Idempotent(Session, schema="session")


class Forks:
    """Forks of sessions, in the caller's tenant."""

    def __init__(self, store: ForkStore, sessions: SessionStore) -> None:
        self._store = store
        self._sessions = sessions

    async def fork(self, new: NewFork, key: Key | None) -> Session:
        """Opens a session that begins with another one's messages.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`).
            InvalidArgument: it has no such message (`SEQUENCE_OUT_OF_RANGE`).
            FailedPrecondition: a call would be parted from its result (`FORK_INSIDE_EXCHANGE`).
            AlreadyExists: the proposed id is taken (`SESSION_ID_TAKEN`).
        """
        async with self._store.transaction(tenant()) as transaction:
            if key is not None:
                # The result that is kept for a repeat tells of the user: erasure has to find it.
                key = replace(key, subject=await self._store.user_of(transaction, new.session_id))
            return await _ONCE.once(transaction, key, lambda: self._fork(transaction, new))

    async def _fork(self, transaction: Transaction, new: NewFork) -> Session:
        forked = await self._store.lock(transaction, new)
        if forked is None:
            raise not_found(new.session_id)
        if forked.place > forked.last_sequence:
            raise out_of_range(forked.last_sequence)
        said = await self._store.around(transaction, new.session_id, forked.place)
        whole = last_whole(said, forked.place, forked.last_sequence)
        if whole != forked.place:
            raise inside_exchange(whole)
        fork_id = new.fork_session_id or uuid7()
        if not await self._store.fork(transaction, fork_id, new, forked):
            raise id_taken(fork_id)
        session = await self._sessions.current(transaction, fork_id)
        assert session is not None
        return session
