"""What becomes of a session: changed, extended, archived, deleted."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from minion.session.v1 import session_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_grpc import wire
from minion_postgres import Database
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase

from tests.minion_session.made import append, listed, new_id, open_session, opened, seconds, source, struct, turn, words
from tests.minion_session.stage import Stub

Change = Callable[[str], Awaitable[None]]

ACTIVE = session_pb2.SESSION_STATUS_ACTIVE
CLOSED = session_pb2.SESSION_STATUS_CLOSED
EXPIRED = session_pb2.SESSION_STATUS_EXPIRED
ARCHIVED = session_pb2.SESSION_STATUS_ARCHIVED


async def get(session: Stub, session_id: str) -> session_pb2.Session:
    return (await session.GetSession(pb.GetSessionRequest(session_id=session_id))).session


async def close(session: Stub, session_id: str) -> session_pb2.Session:
    return (await session.CloseSession(pb.CloseSessionRequest(session_id=session_id))).session


def update(
    session_id: str, *paths: str, etag: str = "", request_id: str = "", **values: Any
) -> pb.UpdateSessionRequest:
    """Makes an update of what the paths name."""
    return pb.UpdateSessionRequest(
        session=session_pb2.Session(session_id=session_id, **values),
        update_mask=FieldMask(paths=paths),
        etag=etag,
        request_id=request_id,
    )


async def archive(session: Stub, session_id: str, **fields: str) -> session_pb2.Session:
    return (await session.ArchiveSession(pb.ArchiveSessionRequest(session_id=session_id, **fields))).session


async def extend(session: Stub, session_id: str, **fields: Any) -> session_pb2.Session:
    return (await session.ExtendSession(pb.ExtendSessionRequest(session_id=session_id, **fields))).session


async def archived(session: Stub) -> str:
    session_id = await open_session(session)
    await close(session, session_id)
    await archive(session, session_id)
    return session_id


async def test_an_update_changes_what_its_mask_names(session: Stub) -> None:
    made = await opened(session, display_name="before", metadata=struct(plan="free"))
    changed = (await session.UpdateSession(update(made.session_id, "display_name", display_name="after"))).session
    assert (changed.display_name, changed.metadata) == ("after", struct(plan="free"))
    assert changed.etag != made.etag
    assert changed.update_time.ToDatetime() > made.update_time.ToDatetime()
    assert changed == await get(session, made.session_id)
    request = update(made.session_id, "metadata", display_name="ignored", metadata=struct(plan="pro"))
    changed = (await session.UpdateSession(request)).session
    assert (changed.display_name, changed.metadata) == ("after", struct(plan="pro"))
    emptied = (await session.UpdateSession(update(made.session_id, "display_name", "metadata"))).session
    assert (emptied.display_name, len(emptied.metadata.fields)) == ("", 0)


async def test_a_replayed_update_changes_nothing(session: Stub) -> None:
    session_id = await open_session(session)
    request = update(session_id, "display_name", display_name="first", request_id=new_id())
    first = await session.UpdateSession(request)
    await session.UpdateSession(update(session_id, "display_name", display_name="second"))
    assert await session.UpdateSession(request) == first
    assert (await get(session, session_id)).display_name == "second"
    request.session.display_name = "other"
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await session.UpdateSession(request)


async def test_a_stale_etag_is_told(session: Stub) -> None:
    made = await opened(session)
    request = update(made.session_id, "display_name", display_name="mine", etag=made.etag)
    changed = (await session.UpdateSession(request)).session
    async with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH") as refusal:
        await session.UpdateSession(request)
    assert refusal.metadata == {"session_id": made.session_id, "etag": changed.etag}


async def test_appends_turns_and_closing_leave_the_etag(session: Stub) -> None:
    made = await opened(session)
    await session.AppendMessages(append(made.session_id, "hello"))
    begun = await session.BeginTurn(turn(made.session_id))
    assert begun.session.etag == made.etag
    assert (await close(session, made.session_id)).etag == made.etag


@pytest.mark.parametrize(
    ("request_", "faulty"),
    [
        (update("", "display_name"), "session.session_id"),
        (update(new_id()), "update_mask"),
        (update(new_id(), "user_id", user_id="eve"), "update_mask"),
        (update(new_id(), "display_name", display_name="n" * 201), "session.display_name"),
        (update(new_id(), "metadata", metadata=struct(big="x" * 16_384)), "session.metadata"),
        (update(new_id(), "metadata", metadata=struct(a="\0")), "session.metadata.a"),
        (update(new_id(), "display_name", request_id="1"), "request_id"),
    ],
)
async def test_update_refuses_what_breaks_a_limit(
    session: Stub, request_: pb.UpdateSessionRequest, faulty: str
) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await session.UpdateSession(request_)
    assert set(refusal.violations) == {faulty}


async def test_closed_and_expired_sessions_may_be_updated_and_archived_ones_not(session: Stub, expire: Change) -> None:
    closed, expired = await open_session(session), await open_session(session, ttl=seconds(60))
    await close(session, closed)
    await expire(expired)
    for session_id, status in ((closed, CLOSED), (expired, EXPIRED)):
        changed = (await session.UpdateSession(update(session_id, "display_name", display_name="x"))).session
        assert (changed.display_name, changed.status) == ("x", status)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_STATUS_FORBIDS") as refusal:
        await session.UpdateSession(update(await archived(session), "display_name", display_name="x"))
    assert (refusal.metadata["status"], refusal.metadata["wanted"]) == ("ARCHIVED", "UPDATED")


async def test_an_absent_session_and_a_foreign_one_read_the_same(session: Stub, stranger: Stub) -> None:
    session_id = await open_session(session)
    for stub, wanted in ((session, new_id()), (stranger, session_id)):
        for attempt in (
            lambda stub=stub, wanted=wanted: stub.UpdateSession(update(wanted, "display_name")),
            lambda stub=stub, wanted=wanted: extend(stub, wanted),
            lambda stub=stub, wanted=wanted: archive(stub, wanted),
            lambda stub=stub, wanted=wanted: stub.DeleteSession(pb.DeleteSessionRequest(session_id=wanted)),
        ):
            async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND") as refusal:
                await attempt()
            assert refusal.metadata == {"session_id": wanted}
    assert (await get(session, session_id)).status == ACTIVE


async def test_a_session_is_extended_from_now_on(session: Stub) -> None:
    made = await opened(session, ttl=seconds(60))
    extended = await extend(session, made.session_id, ttl=seconds(3_600))
    left = extended.expire_time.ToDatetime(UTC) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    assert extended.etag != made.etag
    assert extended == await get(session, made.session_id)
    assert not (await extend(session, made.session_id)).HasField("expire_time")


async def test_an_expired_session_lives_again_when_it_is_extended(session: Stub, expire: Change) -> None:
    session_id = await open_session(session, ttl=seconds(60))
    await expire(session_id)
    assert (await extend(session, session_id, ttl=seconds(60))).status == ACTIVE
    assert (await session.AppendMessages(append(session_id, "back"))).last_sequence == 1
    # Told to have expired or not: it lives again.
    await expire(session_id)
    await session.CleanupExpiredSessions(pb.CleanupExpiredSessionsRequest())
    assert (await extend(session, session_id)).status == ACTIVE
    page = await session.ListSessions(pb.ListSessionsRequest(status=ACTIVE))
    assert [one.session_id for one in page.sessions] == [session_id]


async def test_a_replayed_extension_counts_from_the_first(session: Stub) -> None:
    session_id, request_id = await open_session(session), new_id()
    first = await extend(session, session_id, ttl=seconds(60), request_id=request_id)
    assert await extend(session, session_id, ttl=seconds(60), request_id=request_id) == first
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await extend(session, session_id, ttl=seconds(61), request_id=request_id)


@pytest.mark.parametrize(
    ("fields", "faulty"),
    [
        ({"session_id": "1"}, "session_id"),
        ({"ttl": seconds(0.5)}, "ttl"),
        ({"ttl": seconds(3_651 * 86_400)}, "ttl"),
        ({"request_id": "1"}, "request_id"),
    ],
)
async def test_extend_refuses_what_breaks_a_limit(session: Stub, fields: dict[str, Any], faulty: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await session.ExtendSession(pb.ExtendSessionRequest(**{"session_id": new_id(), **fields}))
    assert set(refusal.violations) == {faulty}


async def test_closed_and_archived_sessions_are_not_extended(session: Stub) -> None:
    closed = await open_session(session)
    await close(session, closed)
    for session_id, status in ((closed, "CLOSED"), (await archived(session), "ARCHIVED")):
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_STATUS_FORBIDS") as refusal:
            await extend(session, session_id, ttl=seconds(60))
        assert (refusal.metadata["status"], refusal.metadata["wanted"]) == (status, "ACTIVE")


async def test_an_archived_session_is_kept_and_changes_no_more(session: Stub, expire: Change) -> None:
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, "kept"))
    await close(session, session_id)
    made = await archive(session, session_id)
    assert made.status == ARCHIVED
    assert made.HasField("archive_time")
    assert (
        made == await archive(session, session_id) == await get(session, session_id) == await close(session, session_id)
    )
    assert words(await listed(session, session_id)) == ["kept"]
    for attempt in (
        lambda: session.AppendMessages(append(session_id, "no")),
        lambda: session.BeginTurn(turn(session_id)),
        lambda: session.SetWorkspaceEntries(
            pb.SetWorkspaceEntriesRequest(
                session_id=session_id, changes=[pb.WorkspaceChange(key="a", value=wire.to_value(1))]
            )
        ),
    ):
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_ACTIVE") as refusal:
            await attempt()
        assert refusal.metadata["status"] == "ARCHIVED"
    expired = await open_session(session, ttl=seconds(60))
    await expire(expired)
    assert (await archive(session, expired)).status == ARCHIVED
    page = await session.ListSessions(pb.ListSessionsRequest(status=ARCHIVED))
    assert [one.session_id for one in page.sessions] == [expired, session_id]


async def test_a_replayed_archiving_returns_the_first_result(session: Stub) -> None:
    session_id, request_id = await open_session(session), new_id()
    await close(session, session_id)
    first = await archive(session, session_id, request_id=request_id)
    assert await archive(session, session_id, request_id=request_id) == first
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await archive(session, new_id(), request_id=request_id)


async def test_an_active_session_is_not_archived(session: Stub) -> None:
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_STATUS_FORBIDS") as refusal:
        await archive(session, await open_session(session))
    assert (refusal.metadata["status"], refusal.metadata["wanted"]) == ("ACTIVE", "ARCHIVED")


async def test_a_held_session_is_not_archived(session: Stub, lapse: Change) -> None:
    session_id = await open_session(session)
    begin = turn(session_id)
    await session.BeginTurn(begin)
    await close(session, session_id)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_HELD") as refusal:
        await archive(session, session_id)
    assert refusal.metadata == {"session_id": session_id, "run_id": begin.source.run_id}
    # A run whose hold has lapsed may append to a closed session, and to an archived one no more.
    await lapse(session_id)
    await archive(session, session_id)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_ACTIVE"):
        await session.AppendMessages(append(session_id, "late", source=source(begin.source.run_id, 2)))


@pytest.mark.parametrize("rpc", ["ArchiveSession", "DeleteSession"])
async def test_ids_are_uuids(session: Stub, rpc: str) -> None:
    request = getattr(pb, f"{rpc}Request")(session_id="1", request_id="2")
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await getattr(session, rpc)(request)
    assert set(refusal.violations) == {"session_id", "request_id"}


COUNTS = {
    table: f"SELECT count(*) FROM session.{table} WHERE session_id = $1"  # noqa: S608 - names of ours
    for table in ("sessions", "messages", "workspace_entries", "told_activity")
}


async def test_a_deleted_session_is_gone_with_all_that_was_in_it(
    session: Stub, owner: Database, tenant_id: UUID
) -> None:
    session_id, other = await open_session(session), await open_session(session)
    change = pb.WorkspaceChange(key="a", value=wire.to_value(1))
    for one in (session_id, other):
        await session.AppendMessages(append(one, "a", "b"))
        await session.SetWorkspaceEntries(pb.SetWorkspaceEntriesRequest(session_id=one, changes=[change]))
    await owner.execute("SELECT session.tell_active($1, $2)", tenant_id, [UUID(session_id), UUID(other)])
    assert await session.DeleteSession(pb.DeleteSessionRequest(session_id=session_id)) == pb.DeleteSessionResponse()
    for count in COUNTS.values():
        assert await owner.fetch_value(count, UUID(session_id)) == 0
        assert await owner.fetch_value(count, UUID(other)) > 0
    async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        await get(session, session_id)
    async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        await session.DeleteSession(pb.DeleteSessionRequest(session_id=session_id))


async def test_a_replayed_deletion_succeeds(session: Stub) -> None:
    request = pb.DeleteSessionRequest(session_id=await open_session(session), request_id=new_id())
    for _ in range(2):
        assert await session.DeleteSession(request) == pb.DeleteSessionResponse()
    request.session_id = await open_session(session)
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await session.DeleteSession(request)


async def test_sessions_are_deleted_whatever_their_status(session: Stub, expire: Change) -> None:
    closed, expired = await open_session(session), await open_session(session, ttl=seconds(60))
    await close(session, closed)
    await expire(expired)
    for session_id in (closed, expired, await archived(session), await open_session(session)):
        await session.DeleteSession(pb.DeleteSessionRequest(session_id=session_id))
    assert list((await session.ListSessions(pb.ListSessionsRequest())).sessions) == []


async def test_a_run_whose_session_was_deleted_is_told(session: Stub) -> None:
    session_id = await open_session(session)
    begin = turn(session_id)
    await session.BeginTurn(begin)
    await session.DeleteSession(pb.DeleteSessionRequest(session_id=session_id))
    for attempt in (
        lambda: session.AppendMessages(append(session_id, "answer", source=source(begin.source.run_id, 2))),
        lambda: session.BeginTurn(begin),
        lambda: session.EndTurn(pb.EndTurnRequest(session_id=session_id, run_id=begin.source.run_id)),
    ):
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
            await attempt()


async def test_a_renewed_hold_keeps_a_session_from_expiring_for_good(
    session: Stub, expire: Change, lapse: Change
) -> None:
    session_id = await open_session(session, ttl=seconds(60))
    begin = turn(session_id)
    await session.BeginTurn(begin)
    await expire(session_id)
    await lapse(session_id)
    cleaned = await session.CleanupExpiredSessions(pb.CleanupExpiredSessionsRequest())
    assert cleaned.expired_count == 1
    # The run comes back, repeats its turn, and holds the session again.
    await session.BeginTurn(begin)
    assert (await get(session, session_id)).status == ACTIVE
    page = await session.ListSessions(pb.ListSessionsRequest(status=ACTIVE))
    assert [one.session_id for one in page.sessions] == [session_id]
    await session.EndTurn(pb.EndTurnRequest(session_id=session_id, run_id=begin.source.run_id))
    assert (await session.CleanupExpiredSessions(pb.CleanupExpiredSessionsRequest())).expired_count == 1


async def test_appends_stay_updates_of_one_row_in_place(
    database_factory: Callable[..., Awaitable[ClonedDatabase]], tenant_id: UUID
) -> None:
    """No index is touched by them but that of the messages, whatever lists sessions by."""
    # Alone on its page: there is no room for twenty more of a row beside the sessions of other tests.
    database, session_id = await database_factory(), new_id()
    opening = """
        INSERT INTO session.sessions (tenant_id, session_id, agent_id, user_id, expire_time)
             VALUES ($1, $2, $2, 'ada', now() + interval '1 hour')
    """
    stats = """
        SELECT pg_stat_get_xact_tuples_updated(oid), pg_stat_get_xact_tuples_hot_updated(oid)
          FROM pg_class WHERE oid = 'session.sessions'::regclass
    """
    appending = """
        SELECT session.append_messages($1, $2, NULL, NULL, NULL, NULL, NULL, false, '{user}', '{x}', '{[]}', '{1}',
                                       '{30}', '{NULL}')
    """
    async with await database.connect("session", "owner") as owner, owner.transaction(None) as transaction:
        await transaction.execute(opening, tenant_id, UUID(session_id))
        before = await transaction.fetch_one(stats)
        for _ in range(20):
            await transaction.execute(appending, tenant_id, UUID(session_id))
        after = await transaction.fetch_one(stats)
    assert before is not None
    assert after is not None
    assert (after[0] - before[0], after[1] - before[1]) == (20, 20)
