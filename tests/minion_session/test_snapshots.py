"""What is read of sessions is of one moment, whatever others do meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest_asyncio
from minion.session.v1 import session_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_postgres import Database
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_session.made import append, context_of, listed, open_session, seconds, words
from tests.minion_session.stage import Stub, eventually, gateway, serving

MakeDatabase = Callable[..., Awaitable[ClonedDatabase]]
_WAITING = """
SELECT count(*) = 1 FROM pg_locks
 WHERE locktype = 'advisory' AND NOT granted
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Gate:
    """Does something the moment that a call has come to the first row of a session."""

    def __init__(self, owner: Database) -> None:
        self._owner = owner

    async def close(self) -> None:
        """Makes the service's role wait at each row of a session while somebody holds the lock."""
        await self._owner.execute(
            """
            CREATE FUNCTION session.gate() RETURNS boolean LANGUAGE plpgsql AS $$
            BEGIN
                PERFORM pg_advisory_xact_lock_shared(1);
                RETURN true;
            END $$
            """
        )
        await self._owner.execute(
            "ALTER POLICY app ON session.sessions USING"
            " (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid AND session.gate())"
        )

    async def meanwhile(self, call: Coroutine[Any, Any, Any], *statements: str) -> Any:
        """Runs statements amid a call; returns what the call gives."""

        async def waits() -> bool:
            return bool(await self._owner.fetch_value(_WAITING))

        async with self._owner.transaction(None) as held:
            await held.execute("SELECT pg_advisory_xact_lock(1)")
            calling = asyncio.create_task(call)
            await eventually(waits)
            for statement in statements:
                await self._owner.execute(statement)
        return await calling


@pytest_asyncio.fixture(loop_scope="session")
async def gated(database_factory: MakeDatabase) -> AsyncIterator[tuple[Stub, Gate]]:
    """A service of its own, and the gate to it."""
    database = await database_factory()
    async with (
        await database.connect("session", "owner", transaction_idle_seconds=60) as owner,
        serving(database) as replica,
        gateway(replica, uuid7()) as session,
    ):
        gate = Gate(owner)
        await gate.close()
        yield session, gate


async def test_messages_of_a_session_deleted_meanwhile_are_all_or_none(gated: tuple[Stub, Gate]) -> None:
    session, gate = gated
    gone = "DELETE FROM session.messages", "DELETE FROM session.sessions"
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, "hello"))
    assert words(await gate.meanwhile(listed(session, session_id), *gone)) == ["hello"]
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, "hello"))
    assert words((await gate.meanwhile(context_of(session, session_id), *gone)).messages) == ["hello"]


async def test_a_session_that_is_told_meanwhile_to_have_expired_is_listed_once(gated: tuple[Stub, Gate]) -> None:
    session, gate = gated
    session_id = await open_session(session, ttl=seconds(1))
    await gate.meanwhile(listed(session, session_id), "UPDATE session.sessions SET expire_time = now()")

    async def expired() -> list[str]:
        page = await session.ListSessions(pb.ListSessionsRequest(status=session_pb2.SESSION_STATUS_EXPIRED))
        return [one.session_id for one in page.sessions]

    told = "UPDATE session.sessions SET expiry_told_time = now()"
    assert await gate.meanwhile(expired(), told) == [session_id]
