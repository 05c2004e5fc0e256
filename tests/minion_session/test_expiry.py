"""Expiry: told once, by RPC, by SQL and in the background; and what expired long ago is deleted."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import grpc
import pytest
from minion.session.v1 import session_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_postgres import Database
from minion_session.expiry.domain import Cleaned
from minion_session.expiry.service import Expiry
from minion_session.expiry.store import ExpiryStore
from minion_session.settings import SessionSettings
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_session.made import append, open_session, seconds, turn
from tests.minion_session.stage import Stub, gateway, give_large_blob, serving

Change = Callable[[str], Awaitable[None]]
MakeDatabase = Callable[..., Awaitable[ClonedDatabase]]
EXPIRED = session_pb2.SESSION_STATUS_EXPIRED
_TOLD = "SELECT count(*) FROM session.changes WHERE resource_id = $1 AND kind = $2"


async def cleanup(session: Stub, limit: int = 0) -> tuple[int, int]:
    cleaned = await session.CleanupExpiredSessions(pb.CleanupExpiredSessionsRequest(limit=limit))
    return cleaned.expired_count, cleaned.deleted_count


async def of_status(session: Stub, status: "session_pb2.SessionStatus.ValueType") -> list[str]:
    page = await session.ListSessions(pb.ListSessionsRequest(status=status))
    return [one.session_id for one in page.sessions]


async def test_a_session_is_told_to_have_expired_once(session: Stub, owner: Database, expire: Change) -> None:
    session_id = await open_session(session, ttl=seconds(60))
    await open_session(session, ttl=seconds(60))
    assert await cleanup(session) == (0, 0)
    await expire(session_id)
    # It reads as expired before it is told, and after.
    assert await of_status(session, EXPIRED) == [session_id]
    assert await cleanup(session) == (1, 0)
    assert await cleanup(session) == (0, 0)
    assert await of_status(session, EXPIRED) == [session_id]
    assert await owner.fetch_value(_TOLD, UUID(session_id), "expired") == 1


async def test_one_that_was_extended_expires_again(session: Stub, owner: Database, expire: Change) -> None:
    session_id = await open_session(session, ttl=seconds(60))
    for _ in range(2):
        await expire(session_id)
        assert await cleanup(session) == (1, 0)
        await session.ExtendSession(pb.ExtendSessionRequest(session_id=session_id, ttl=seconds(60)))
    assert await owner.fetch_value(_TOLD, UUID(session_id), "expired") == 2


async def test_held_closed_and_archived_sessions_do_not_expire(session: Stub, expire: Change, lapse: Change) -> None:
    held, closed, archived = [await open_session(session, ttl=seconds(60)) for _ in range(3)]
    await session.BeginTurn(turn(held))
    for session_id in (closed, archived):
        await session.CloseSession(pb.CloseSessionRequest(session_id=session_id))
    await session.ArchiveSession(pb.ArchiveSessionRequest(session_id=archived))
    for session_id in (held, closed, archived):
        await expire(session_id)
    assert await cleanup(session) == (0, 0)
    assert await of_status(session, EXPIRED) == []
    await lapse(held)
    assert await cleanup(session) == (1, 0)


async def test_a_limit_bounds_what_is_cleaned_up_at_once(session: Stub, expire: Change) -> None:
    for _ in range(3):
        await expire(await open_session(session, ttl=seconds(60)))
    assert [await cleanup(session, 2) for _ in range(3)] == [(2, 0), (1, 0), (0, 0)]


@pytest.mark.parametrize("limit", [-1, 10_001])
async def test_cleanup_refuses_what_breaks_a_limit(session: Stub, limit: int) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await cleanup(session, limit)
    assert set(refusal.violations) == {"limit"}


async def test_a_callers_cleanup_concerns_its_tenant_alone(session: Stub, stranger: Stub, expire: Change) -> None:
    await expire(await open_session(session, ttl=seconds(60)))
    assert await cleanup(stranger) == (0, 0)
    assert await cleanup(session) == (1, 0)


async def test_what_expired_long_ago_is_deleted_where_it_is_wanted(database_factory: MakeDatabase) -> None:
    database = await database_factory()
    async with (
        serving(database, expired_kept=timedelta(days=30)) as replica,
        gateway(replica, uuid7()) as session,
        await database.connect("session", "owner") as owner,
    ):
        old, recent, closed = [await open_session(session, ttl=seconds(60)) for _ in range(3)]
        await session.AppendMessages(append(old, "hello"))
        await session.CloseSession(pb.CloseSessionRequest(session_id=closed))
        await owner.execute("UPDATE session.sessions SET expire_time = now() - interval '40 days'")
        assert await cleanup(session) == (2, 0)
        await owner.execute(
            "UPDATE session.sessions SET expiry_told_time = now() - interval '31 days' WHERE session_id = ANY ($1)",
            [UUID(old), UUID(closed)],
        )
        assert await cleanup(session) == (0, 1)
        assert await of_status(session, EXPIRED) == [recent]
        assert await owner.fetch_value(_TOLD, UUID(old), "deleted") == 1
        assert await owner.fetch_value("SELECT count(*) FROM session.messages") == 0
        assert len((await session.ListSessions(pb.ListSessionsRequest())).sessions) == 2


async def _crowd(database: ClonedDatabase, owner: Database) -> None:
    """Three tenants with many sessions whose time is up, one more than a batch takes at once."""
    for count in (450, 10, 1):
        await owner.execute(
            """
            INSERT INTO session.sessions (tenant_id, session_id, agent_id, user_id, expire_time)
            SELECT $1, gen_random_uuid(), $1, 'ada', now() - number * interval '1 second'
              FROM generate_series(1, $2::int) AS number
            """,
            uuid7(),
            count,
        )


async def test_the_background_cleans_up_all_tenants_once_however_many_do_it(database_factory: MakeDatabase) -> None:
    database = await database_factory()
    async with (
        await database.connect("session") as app,
        await database.connect("session", "owner") as owner,
    ):
        await _crowd(database, owner)
        expiry = Expiry(ExpiryStore(app), kept=timedelta(days=1))
        cleaned = await asyncio.gather(*[expiry.clean_everywhere() for _ in range(4)])
        assert sum(cleaned, Cleaned()) + await expiry.clean_everywhere() == Cleaned(expired=461)
        told = await owner.fetch("SELECT count(*) FROM session.changes WHERE kind = 'expired' GROUP BY resource_id")
        assert [row["count"] for row in told] == [1] * 461
        await owner.execute("UPDATE session.sessions SET expiry_told_time = now() - interval '2 days'")
        cleaned = await asyncio.gather(*[expiry.clean_everywhere() for _ in range(4)])
        assert sum(cleaned, Cleaned()) + await expiry.clean_everywhere() == Cleaned(deleted=461)
        assert await owner.fetch_value("SELECT count(*) FROM session.sessions") == 0


async def test_blobs_are_cleaned_up_some_at_a_time(
    session: Stub, postgres: ClonedDatabase, owner: Database, tenant_id: UUID
) -> None:
    for _ in range(5):
        session_id = await open_session(session, ttl=seconds(60))
        await give_large_blob(owner, tenant_id, session_id)
        await owner.execute(
            "UPDATE session.sessions SET expire_time = now() - interval '9 days', expiry_told_time = now()"
            " WHERE session_id = $1",
            UUID(session_id),
        )
    async with await postgres.connect("session") as app:
        store = ExpiryStore(app)
        assert [await store.clean(tenant_id, 1_000, timedelta(0)) for _ in range(4)] == [
            Cleaned(deleted=2),
            Cleaned(deleted=2),
            Cleaned(deleted=1),
            Cleaned(),
        ]


async def test_a_tenant_whose_sessions_cannot_be_deleted_holds_up_no_other(database_factory: MakeDatabase) -> None:
    database = await database_factory()
    async with (
        await database.connect("session") as app,
        await database.connect("session", "owner") as owner,
    ):
        await owner.execute(
            """
            CREATE FUNCTION session.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RAISE EXCEPTION 'too large' USING ERRCODE = 'deadlock_detected';
            END $$
            """
        )
        await owner.execute(
            "CREATE TRIGGER refuse BEFORE DELETE ON session.sessions FOR EACH ROW WHEN (OLD.user_id = 'large')"
            " EXECUTE FUNCTION session.refuse()"
        )
        large, others = UUID(int=1), [UUID(int=place) for place in range(2, 12)]
        for user, tenants, old in (("large", [large], 3), ("ada", others, 2)):
            await owner.execute(
                """
                INSERT INTO session.sessions
                       (tenant_id, session_id, agent_id, user_id, expire_time, expiry_told_time)
                SELECT tenant, gen_random_uuid(), tenant, $1, now() - interval '9 days',
                       CASE WHEN told THEN now() - $2::int * interval '1 day' END
                  FROM unnest($3::uuid[]) AS tenant, unnest(ARRAY[true, false]) AS told
                """,
                user,
                old,
                tenants,
            )
        expiry = Expiry(ExpiryStore(app), kept=timedelta(days=1))
        # Each has one that is deleted, but the large one's, and one that is told.
        assert await expiry.clean_everywhere() == Cleaned(expired=11, deleted=10)
        assert await expiry.clean_everywhere() == Cleaned()


async def test_a_session_that_somebody_is_busy_with_has_to_wait(
    session: Stub, owner: Database, expire: Change, tenant_id: UUID
) -> None:
    session_id = await open_session(session, ttl=seconds(60))
    await expire(session_id)
    async with owner.transaction(tenant_id) as transaction:
        await transaction.execute("SELECT FROM session.sessions WHERE session_id = $1 FOR UPDATE", UUID(session_id))
        assert await cleanup(session) == (0, 0)
    assert await cleanup(session) == (1, 0)


async def test_sql_cleans_up_all_tenants_for_the_owner(database_factory: MakeDatabase) -> None:
    database = await database_factory()
    async with (
        await database.connect("session", "owner") as owner,
        await database.connect("session") as app,
    ):
        await _crowd(database, owner)
        row = await owner.fetch_one("SELECT * FROM session.cleanup_expired_sessions()")
        assert row is not None
        assert tuple(row) == (461, 0)
        await owner.execute("UPDATE session.sessions SET expiry_told_time = now() - interval '2 days'")
        row = await owner.fetch_one("SELECT * FROM session.cleanup_expired_sessions(400, interval '1 day')")
        assert row is not None
        assert tuple(row) == (0, 400)
        # The service's role sees no tenant of its own.
        row = await app.fetch_one("SELECT * FROM session.cleanup_expired_sessions(400, interval '1 day')")
        assert row is not None
        assert tuple(row) == (0, 0)


@pytest.mark.parametrize(("text", "kept"), [("", None), ("P30D", 30.0), ("PT12H", 0.5), ("PT0S", 0.0)])
def test_how_long_expired_sessions_are_kept_is_a_setting(text: str, kept: float | None) -> None:
    settings = SessionSettings.load(
        {
            "MINION_DATABASE_URL": "postgresql://localhost/minion",
            "MINION_AUTH_MODE": "disabled",
            "MINION_SESSION_EXPIRED_KEPT": text,
        }
    )
    assert settings.expired_kept == (None if kept is None else timedelta(days=kept))
