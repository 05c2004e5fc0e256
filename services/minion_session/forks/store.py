"""Forks in Postgres."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from uuid import UUID

from minion_postgres import Database, Transaction, queries

from minion_session.forks.domain import REACH, NewFork, Said
from minion_session.messages.domain import Role

_QUERIES = queries.load(__package__)


@dataclass(frozen=True, slots=True)
class Forked:
    """A session that is locked to be forked: its last sequence, where the fork ends, and who holds that message."""

    last_sequence: int
    place: int
    holder: UUID


class ForkStore:
    """Opens forks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def transaction(self, tenant_id: UUID) -> AbstractAsyncContextManager[Transaction]:
        """Opens a transaction in a tenant."""
        return self._database.transaction(tenant_id)

    async def user_of(self, transaction: Transaction, session_id: UUID) -> str | None:
        """Reads whose a session is; None when there is none."""
        user: str | None = await transaction.fetch_value(_QUERIES.user_of_session, transaction.tenant_id, session_id)
        return user

    async def lock(self, transaction: Transaction, new: NewFork) -> Forked | None:
        """Locks the session that is to be forked; None when there is none."""
        row = await transaction.fetch_one(
            _QUERIES.lock_for_fork, transaction.tenant_id, new.session_id, new.at_sequence
        )
        assert row is not None
        if row["place"] is None:
            return None
        return Forked(row["last_sequence"], row["place"], row["holder"])

    async def around(self, transaction: Transaction, session_id: UUID, place: int) -> list[Said]:
        """Reads what the messages around a place have to do with tools."""
        rows = await transaction.fetch(
            _QUERIES.list_exchanges, transaction.tenant_id, session_id, max(place - REACH, 0), place + REACH
        )
        return [Said(row["sequence"], Role(row["role"]), tuple(row["calls"]), tuple(row["results"])) for row in rows]

    async def fork(self, transaction: Transaction, fork_id: UUID, new: NewFork, forked: Forked) -> bool:
        """Opens the fork; False when its id is taken."""
        return bool(
            await transaction.fetch_value(
                _QUERIES.fork_session,
                transaction.tenant_id,
                new.session_id,
                fork_id,
                new.display_name,
                new.ttl,
                forked.place,
                forked.holder,
            )
        )
