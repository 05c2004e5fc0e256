"""WatchSessions: what is told of sessions, to whom, and that nothing is lost or told twice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import grpc
import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask
from minion.session.v1 import session_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_postgres import Database
from minion_session.changes.service import Activity
from minion_session.changes.store import ActivityStore
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served
from uuid_utils.compat import uuid7

from tests.minion_session.made import append, new_id, open_session, seconds, turn
from tests.minion_session.stage import Stub, gateway, serving

SYNCED = session_pb2.SESSION_CHANGE_KIND_SYNCED
CREATED = session_pb2.SESSION_CHANGE_KIND_CREATED
UPDATED = session_pb2.SESSION_CHANGE_KIND_UPDATED
ACTIVE = session_pb2.SESSION_CHANGE_KIND_ACTIVE
CLOSED = session_pb2.SESSION_CHANGE_KIND_CLOSED
EXPIRED = session_pb2.SESSION_CHANGE_KIND_EXPIRED
ARCHIVED = session_pb2.SESSION_CHANGE_KIND_ARCHIVED
DELETED = session_pb2.SESSION_CHANGE_KIND_DELETED

Change = Callable[[str], Awaitable[None]]


class Watch:
    """One open watch."""

    def __init__(self, call: "grpc.aio.UnaryStreamCall[pb.WatchSessionsRequest, pb.WatchSessionsResponse]") -> None:
        self._call = call
        self.cursor = ""

    async def next(self) -> pb.WatchSessionsResponse:
        """Waits for what is told next."""
        async with asyncio.timeout(60):
            told = await self._call.read()
        assert isinstance(told, pb.WatchSessionsResponse)
        self.cursor = told.cursor
        return told

    async def change(self) -> pb.WatchSessionsResponse:
        """Waits for the next change."""
        while (told := await self.next()).kind == SYNCED:
            pass
        return told

    async def kinds(self, count: int) -> list[int]:
        """Waits for so many changes and gives their kinds."""
        return [(await self.change()).kind for _ in range(count)]

    async def silence(self) -> None:
        """Waits until it is told that there is nothing more."""
        assert (await self.next()).kind == SYNCED


@asynccontextmanager
async def watching(session: Stub, cursor: str = "") -> AsyncIterator[Watch]:
    """Watches for a block, in which the first SYNCED has come."""
    call = session.WatchSessions(pb.WatchSessionsRequest(cursor=cursor))
    try:
        watch = Watch(call)
        first = await watch.next()
        assert (first.kind, first.session_id, first.tenant_id) == (SYNCED, "", "")
        assert not first.HasField("create_time")
        assert first.cursor
        yield watch
    finally:
        call.cancel()


async def open_before(session: Stub) -> str:
    """Opens a session whose creation is in the past of the next watch.

    From now on means from the oldest transaction on that still writes, whosever it is: what was told to one watcher is
    before that.
    """
    async with watching(session) as watch:
        session_id = await open_session(session)
        while (await watch.change()).session_id != session_id:
            pass
    return session_id


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def activity(postgres: ClonedDatabase) -> AsyncIterator[Activity]:
    """Takes rounds when it is told to."""
    async with await postgres.connect("session") as database:
        yield Activity(ActivityStore(database), pause=timedelta(0), overlap=timedelta(minutes=1))


async def everything(session: Stub, expire: Change, activity: Activity) -> str:
    """Does to one session all that can happen to it."""
    session_id = await open_session(session, ttl=seconds(60))
    await session.UpdateSession(
        pb.UpdateSessionRequest(
            session=session_pb2.Session(session_id=session_id, display_name="x"),
            update_mask=FieldMask(paths=["display_name"]),
        )
    )
    await session.AppendMessages(append(session_id, "hello"))
    await activity.round()
    await expire(session_id)
    await session.CleanupExpiredSessions(pb.CleanupExpiredSessionsRequest())
    await session.ExtendSession(pb.ExtendSessionRequest(session_id=session_id))
    await session.CloseSession(pb.CloseSessionRequest(session_id=session_id))
    await session.ArchiveSession(pb.ArchiveSessionRequest(session_id=session_id))
    await session.DeleteSession(pb.DeleteSessionRequest(session_id=session_id))
    return session_id


ALL_KINDS = [CREATED, UPDATED, ACTIVE, EXPIRED, UPDATED, CLOSED, ARCHIVED, DELETED]


async def test_every_change_is_told_in_order(
    session: Stub, tenant_id: UUID, expire: Change, activity: Activity
) -> None:
    async with watching(session) as watch:
        session_id = await everything(session, expire, activity)
        told = [await watch.change() for _ in ALL_KINDS]
    assert [change.kind for change in told] == ALL_KINDS
    assert {(change.session_id, change.tenant_id) for change in told} == {(session_id, str(tenant_id))}
    for change in told:
        assert abs(change.create_time.ToDatetime(UTC) - datetime.now(UTC)) < timedelta(minutes=1)


async def test_what_changes_nothing_is_not_told(session: Stub, expire: Change) -> None:
    async with watching(session) as watch:
        create = pb.CreateSessionRequest(agent_id=new_id(), user_id="ada", request_id=new_id())
        session_id = (await session.CreateSession(create)).session.session_id
        await session.CreateSession(create)
        async with refused(grpc.StatusCode.ALREADY_EXISTS, "SESSION_ID_TAKEN"):
            await open_session(session, session_id=session_id)
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_STATUS_FORBIDS"):
            await session.ArchiveSession(pb.ArchiveSessionRequest(session_id=session_id))
        for _ in range(2):
            await session.CloseSession(pb.CloseSessionRequest(session_id=session_id))
        await session.CleanupExpiredSessions(pb.CleanupExpiredSessionsRequest())
        assert await watch.kinds(2) == [CREATED, CLOSED]
        await watch.silence()


async def test_no_cursor_means_from_now_on(session: Stub) -> None:
    async with watching(session) as watch:
        await open_session(session)
        # Told to one watcher, it is in the past of the next.
        await watch.change()
    async with watching(session) as watch:
        session_id = await open_session(session)
        assert (await watch.change()).session_id == session_id


async def test_a_watch_resumes_behind_its_cursor_on_another_replica(
    session: Stub, tenant_id: UUID, postgres: ClonedDatabase
) -> None:
    async with watching(session) as watch:
        await open_session(session)
        first = await watch.change()
    made = [await open_session(session) for _ in range(2)]
    async with serving(postgres) as other, gateway(other, tenant_id) as stub, watching(stub, first.cursor) as watch:
        told = [await watch.change() for _ in range(2)]
        assert [change.session_id for change in told] == made
        await watch.silence()
        cursor = watch.cursor
    late = await open_session(session)
    async with watching(session, cursor) as watch:
        assert (await watch.change()).session_id == late


async def test_a_tenant_sees_its_own_and_a_service_for_nobody_sees_all(
    session: Stub, stranger: Stub, replica: Served
) -> None:
    async with (
        replica.acting(None) as channel,
        watching(SessionServiceStub(channel)) as everyone,
        watching(session) as ours,
        watching(stranger) as theirs,
    ):
        mine, other = await open_session(session), await open_session(stranger)
        assert (await ours.change()).session_id == mine
        assert (await theirs.change()).session_id == other
        told: list[pb.WatchSessionsResponse] = []
        while len(told) < 2:
            change = await everyone.change()
            # What was done for others just before may be told as well.
            if change.session_id in {mine, other}:
                told.append(change)
        assert [change.session_id for change in told] == [mine, other]
        assert len({change.tenant_id for change in told}) == 2
        await ours.silence()
        await theirs.silence()


async def test_a_cursor_belongs_to_its_tenant(session: Stub, stranger: Stub) -> None:
    async with watching(session) as watch:
        cursor = watch.cursor
    for stub, given in ((stranger, cursor), (session, "?"), (session, "bm8")):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
            await stub.WatchSessions(pb.WatchSessionsRequest(cursor=given)).read()


async def test_a_cursor_that_is_too_old_is_told(
    session: Stub, postgres: ClonedDatabase, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(session) as watch:
        cursor = watch.cursor

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=8)

    monkeypatch.setattr("minion_postgres.feed.datetime", Later)
    async with refused(grpc.StatusCode.ABORTED, "CURSOR_EXPIRED"):
        await session.WatchSessions(pb.WatchSessionsRequest(cursor=cursor)).read()


async def test_many_writers_lose_no_change(session: Stub) -> None:
    async with watching(session) as watch:

        async def live() -> str:
            session_id = await open_session(session)
            await session.CloseSession(pb.CloseSessionRequest(session_id=session_id))
            return session_id

        made = await asyncio.gather(*[live() for _ in range(30)])
        told = [await watch.change() for _ in range(60)]
    for session_id in made:
        assert [change.kind for change in told if change.session_id == session_id] == [CREATED, CLOSED]


async def test_activity_is_told_once_for_new_messages(session: Stub, activity: Activity) -> None:
    quiet, busy = await open_before(session), await open_before(session)
    await activity.round()
    async with watching(session) as watch:
        await session.AppendMessages(append(busy, "a", "b"))
        await session.BeginTurn(turn(busy))
        await activity.round()
        await activity.round()
        assert (await watch.change()).session_id == busy
        await session.AppendMessages(append(busy, "c"))
        await session.AppendMessages(append(quiet, "d"))
        await activity.round()
        told = [await watch.change() for _ in range(2)]
        assert {(change.session_id, change.kind) for change in told} == {(quiet, ACTIVE), (busy, ACTIVE)}
        await watch.silence()


async def test_appends_write_no_change(session: Stub) -> None:
    session_id = await open_before(session)
    async with watching(session) as watch:
        await session.AppendMessages(append(session_id, "a"))
        await session.BeginTurn(turn(session_id))
        await watch.silence()


async def test_a_message_that_is_committed_late_is_told(
    session: Stub, activity: Activity, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    session_id = await open_before(session)
    appending = """
        SELECT session.append_messages($1, $2, NULL, NULL, NULL, NULL, NULL, false, '{user}', '{x}',
                                       '{"[{\\"text\\": \\"late\\"}]"}', '{1}', '{30}', '{NULL}')
    """
    async with await postgres.connect("session", "owner") as owner, watching(session) as watch:
        async with owner.transaction(tenant_id) as transaction:
            await transaction.execute(appending, tenant_id, UUID(session_id))
            # Rounds pass that can't see it.
            for _ in range(3):
                await activity.round()
        await activity.round()
        assert (await watch.change()).kind == ACTIVE


async def test_many_tellers_at_once_tell_once(
    session: Stub, activity: Activity, owner: Database, tenant_id: UUID
) -> None:
    made = [await open_session(session) for _ in range(10)]
    for session_id in made:
        await session.AppendMessages(append(session_id, "hello"))
    await asyncio.gather(*[activity.round() for _ in range(6)])
    await activity.round()
    told = await owner.fetch(
        "SELECT resource_id, count(*) FROM session.changes WHERE tenant_id = $1 AND kind = 'active' GROUP BY 1",
        tenant_id,
    )
    assert {str(row["resource_id"]): row["count"] for row in told} == dict.fromkeys(made, 1)


async def test_a_round_that_dies_is_made_up_for(
    session: Stub, activity: Activity, owner: Database, tenant_id: UUID
) -> None:
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, "hello"))
    # Begun, and never ended.
    assert await owner.fetch_one("SELECT * FROM session.begin_activity_round(interval '0')")
    await activity.round()
    count = "SELECT count(*) FROM session.changes WHERE tenant_id = $1 AND kind = 'active'"
    assert await owner.fetch_value(count, tenant_id) == 1


async def test_rounds_keep_their_distance_on_all_replicas(
    database_factory: Callable[..., Awaitable[ClonedDatabase]],
) -> None:
    # One that no replica looks at: it would take the round that is due.
    alone = await database_factory()
    async with await alone.connect("session") as database, await alone.connect("session", "owner") as owner:
        store = ActivityStore(database)
        assert await store.begin_round(timedelta(0)) is not None
        assert await store.begin_round(timedelta(minutes=1)) is None
        await owner.execute("UPDATE session.activity_rounds SET begin_time = now() - interval '1 minute'")
        begun = [await store.begin_round(timedelta(minutes=1)) for _ in range(2)]
        assert [one is not None for one in begun] == [True, False]
        # A clock that was set back does not stop the telling until it has caught up.
        await owner.execute("UPDATE session.activity_rounds SET begin_time = now() + interval '1 day'")
        assert await store.begin_round(timedelta(minutes=1)) is not None


async def test_what_was_told_long_ago_is_forgotten(
    session: Stub, activity: Activity, owner: Database, tenant_id: UUID
) -> None:
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, "hello"))
    await activity.round()
    kept = "SELECT count(*) FROM session.told_activity WHERE tenant_id = $1"
    assert await owner.fetch_value(kept, tenant_id) == 1
    for long_ago in (
        "UPDATE session.messages SET create_time = now() - interval '2 hours' WHERE tenant_id = $1",
        "UPDATE session.told_activity SET tell_time = now() - interval '2 hours' WHERE tenant_id = $1",
    ):
        await owner.execute(long_ago, tenant_id)
    for _ in range(2):
        await activity.round()
    assert await owner.fetch_value(kept, tenant_id) == 0
    count = "SELECT count(*) FROM session.changes WHERE tenant_id = $1 AND kind = 'active'"
    assert await owner.fetch_value(count, tenant_id) == 1


async def test_the_service_tells_activity_and_expiry_by_itself(
    database_factory: Callable[..., Awaitable[ClonedDatabase]],
) -> None:
    database = await database_factory()
    tenant_id = uuid7()
    async with (
        serving(database, activity_seconds=0.05, expiry_seconds=0.05) as one,
        serving(database, activity_seconds=0.05, expiry_seconds=0.05) as other,
        gateway(one, tenant_id) as stub,
        gateway(other, tenant_id) as elsewhere,
        watching(elsewhere) as watch,
        await database.connect("session", "owner") as owner,
    ):
        session_id = await open_session(stub, ttl=seconds(60))
        await stub.AppendMessages(append(session_id, "hello"))
        assert await watch.kinds(2) == [CREATED, ACTIVE]
        await owner.execute("UPDATE session.sessions SET expire_time = now()")
        assert await watch.kinds(1) == [EXPIRED]
        await watch.silence()
