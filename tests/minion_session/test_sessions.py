"""Sessions: opened, read, listed, closed, expired."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct, Value
from minion.session.v1 import session_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_postgres import Database
from minion_testing.errors import refused

from tests.minion_session.made import append, new_id, open_session, opened, seconds, source, struct, turn
from tests.minion_session.stage import Stub

Change = Callable[[str], Awaitable[None]]

ACTIVE = session_pb2.SESSION_STATUS_ACTIVE
CLOSED = session_pb2.SESSION_STATUS_CLOSED
EXPIRED = session_pb2.SESSION_STATUS_EXPIRED


async def get(session: Stub, session_id: str) -> session_pb2.Session:
    return (await session.GetSession(pb.GetSessionRequest(session_id=session_id))).session


async def close(session: Stub, session_id: str, **fields: str) -> session_pb2.Session:
    return (await session.CloseSession(pb.CloseSessionRequest(session_id=session_id, **fields))).session


async def test_an_opened_session_reads_as_it_was_asked_for(session: Stub) -> None:
    agent_id = new_id()
    made = await opened(
        session,
        agent_id=agent_id,
        user_id="ada",
        display_name="A chat ✓",
        metadata=struct(plan="pro", depth=[1, 2.5, None, {"deep": True}]),
        ttl=seconds(90),
    )
    assert made == await get(session, made.session_id)
    assert UUID(made.session_id).version == 7
    assert (made.agent_id, made.user_id, made.display_name) == (agent_id, "ada", "A chat ✓")
    assert (made.status, made.last_sequence) == (ACTIVE, 0)
    assert made.metadata == struct(plan="pro", depth=[1, 2.5, None, {"deep": True}])
    assert made.expire_time.ToDatetime() - made.create_time.ToDatetime() == timedelta(seconds=90)
    assert not made.HasField("close_time")


async def test_a_session_without_ttl_does_not_expire(session: Stub) -> None:
    assert not (await opened(session)).HasField("expire_time")


async def test_a_replayed_create_opens_nothing(session: Stub) -> None:
    request = pb.CreateSessionRequest(agent_id=new_id(), user_id="ada", metadata=struct(a=1), request_id=new_id())
    first = await session.CreateSession(request)
    await session.AppendMessages(append(first.session.session_id, "changes the session"))
    assert await session.CreateSession(request) == first
    assert len((await session.ListSessions(pb.ListSessionsRequest())).sessions) == 1


async def test_a_request_id_serves_one_request(session: Stub) -> None:
    request_id = new_id()
    await opened(session, user_id="ada", request_id=request_id)
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await opened(session, user_id="grace", request_id=request_id)
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await close(session, await open_session(session), request_id=request_id)


async def test_a_proposed_id_is_taken_once_in_a_tenant(session: Stub, stranger: Stub) -> None:
    session_id = new_id()
    assert (await opened(session, session_id=session_id)).session_id == session_id
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "SESSION_ID_TAKEN") as refusal:
        await opened(session, session_id=session_id)
    assert refusal.metadata == {"session_id": session_id}
    assert refusal.domain == "minion.session"
    assert (await opened(stranger, session_id=session_id)).session_id == session_id


@pytest.mark.parametrize(
    ("fields", "faulty"),
    [
        ({"agent_id": ""}, "agent_id"),
        ({"agent_id": "no uuid"}, "agent_id"),
        ({"session_id": "no uuid"}, "session_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "a" * 201}, "user_id"),
        ({"user_id": "a\0b"}, "user_id"),
        ({"display_name": "a" * 201}, "display_name"),
        ({"metadata": struct(big="x" * 16_384)}, "metadata"),
        ({"metadata": Struct(fields={"n": Value(number_value=float("nan"))})}, "metadata.n"),
        ({"metadata": struct(a="\0")}, "metadata.a"),
        ({"ttl": seconds(0.5)}, "ttl"),
        ({"ttl": seconds(3_651 * 86_400)}, "ttl"),
        ({"request_id": "1"}, "request_id"),
    ],
)
async def test_create_refuses_what_breaks_a_limit(session: Stub, fields: dict[str, object], faulty: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await opened(session, **fields)
    assert set(refusal.violations) == {faulty}


async def test_create_takes_what_meets_each_limit(session: Stub) -> None:
    made = await opened(
        session,
        user_id="ü" * 200,
        display_name="n" * 200,
        metadata=struct(big="x" * (16_384 - len('{"big":""}'))),
        ttl=seconds(3_650 * 86_400),
    )
    assert await get(session, made.session_id) == made


async def test_all_faults_are_told_at_once(session: Stub) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await opened(session, agent_id="x", user_id="", display_name="n" * 201)
    assert set(refusal.violations) == {"agent_id", "user_id", "display_name"}


async def test_an_absent_session_and_a_foreign_one_read_the_same(session: Stub, stranger: Stub) -> None:
    session_id = await open_session(session)
    for stub, wanted in ((session, new_id()), (stranger, session_id)):
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND") as refusal:
            await get(stub, wanted)
        assert refusal.metadata == {"session_id": wanted}
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
            await close(stub, wanted)


async def test_ids_are_uuids(session: Stub) -> None:
    for malformed in ("", "1", "{01890a5d-ac96-774b-bcce-b302099a8057}"):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
            await get(session, malformed)
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
            await close(session, malformed)


async def test_sessions_are_listed_newest_first_page_by_page(session: Stub, stranger: Stub) -> None:
    made = [await open_session(session) for _ in range(5)]
    await opened(stranger)
    found: list[str] = []
    sizes, token = [], ""
    while True:
        page = await session.ListSessions(pb.ListSessionsRequest(page_size=2, page_token=token))
        found += [one.session_id for one in page.sessions]
        sizes.append(len(page.sessions))
        token = page.next_page_token
        if not token:
            break
    assert found == made[::-1]
    assert sizes == [2, 2, 1]


async def test_sessions_are_listed_by_agent_user_and_status(session: Stub, expire: Change) -> None:
    ours, theirs = new_id(), new_id()
    first = await open_session(session, agent_id=ours, user_id="ada")
    second = await open_session(session, agent_id=ours, user_id="grace")
    third = await open_session(session, agent_id=theirs, user_id="ada", ttl=seconds(60))
    await close(session, second)
    await expire(third)

    async def ids(**filters: object) -> list[str]:
        page = await session.ListSessions(pb.ListSessionsRequest(**filters))  # type: ignore[arg-type]
        return [one.session_id for one in page.sessions]

    assert await ids() == [third, second, first]
    assert await ids(agent_id=ours) == [second, first]
    assert await ids(user_id="ada") == [third, first]
    assert await ids(user_id="ada", agent_id=ours) == [first]
    assert await ids(status=ACTIVE) == [first]
    assert await ids(status=CLOSED, agent_id=ours) == [second]
    assert await ids(status=EXPIRED, user_id="ada") == [third]
    assert await ids(user_id="nobody") == []


async def test_a_page_ends_before_it_is_too_large(session: Stub, owner: Database, tenant_id: UUID) -> None:
    # The metadata that grows most on the wire: numbers of one digit.
    await owner.execute(
        """
        INSERT INTO session.sessions (tenant_id, session_id, agent_id, user_id, metadata)
        SELECT $1, lpad(to_hex(number), 32, '0')::uuid, $1, 'ada',
               (SELECT jsonb_build_object('numbers', jsonb_agg(1)) FROM generate_series(1, 8000))
          FROM generate_series(1, 40) AS number
        """,
        tenant_id,
    )
    found, token = 0, ""
    while True:
        page = await session.ListSessions(pb.ListSessionsRequest(page_size=500, page_token=token))
        assert page.ByteSize() < 3 * 1024 * 1024
        found += len(page.sessions)
        token = page.next_page_token
        if not token:
            break
    assert found == 40


async def test_a_session_with_numbers_that_are_long_when_spelled_out_is_listed(session: Stub) -> None:
    # As JSON each takes six bytes, in the database's own words 311.
    for _ in range(3):
        await open_session(session, metadata=struct(numbers=[1e308] * 2_300))
    sizes, token = [], ""
    for _ in range(3):
        page = await session.ListSessions(pb.ListSessionsRequest(page_size=2, page_token=token))
        sizes.append(len(page.sessions))
        token = page.next_page_token
        if not token:
            break
    assert sizes == [2, 1]


async def test_a_page_token_belongs_to_its_list(session: Stub) -> None:
    for _ in range(2):
        await opened(session, user_id="ada")
    token = (await session.ListSessions(pb.ListSessionsRequest(page_size=1, user_id="ada"))).next_page_token
    assert token
    for request in (
        pb.ListSessionsRequest(page_token=token),
        pb.ListSessionsRequest(user_id="grace", page_token=token),
        pb.ListSessionsRequest(user_id="ada", page_token="?" + token),
        pb.ListSessionsRequest(user_id="ada", page_token="bm8"),
    ):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
            await session.ListSessions(request)


async def test_list_refuses_what_breaks_a_limit(session: Stub) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await session.ListSessions(
            pb.ListSessionsRequest(
                agent_id="x",
                user_id="u" * 201,
                status=17,  # type: ignore[arg-type]
                page_size=-1,
            )
        )
    assert set(refusal.violations) == {"agent_id", "user_id", "status", "page_size"}


async def test_a_large_page_size_becomes_the_largest(session: Stub) -> None:
    await opened(session)
    assert len((await session.ListSessions(pb.ListSessionsRequest(page_size=100_000))).sessions) == 1


async def test_a_closed_session_stays_closed(session: Stub) -> None:
    session_id = await open_session(session)
    closed = await close(session, session_id)
    assert closed.status == CLOSED
    assert closed.HasField("close_time")
    assert await close(session, session_id) == closed
    assert await get(session, session_id) == closed


async def test_a_replayed_close_returns_the_first_result(session: Stub) -> None:
    session_id, request_id = await open_session(session), new_id()
    first = await close(session, session_id, request_id=request_id)
    assert await close(session, session_id, request_id=request_id) == first
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await close(session, await open_session(session), request_id=request_id)


async def test_an_expired_session_reads_expired_and_cannot_be_closed(session: Stub, expire: Change) -> None:
    session_id = await open_session(session, ttl=seconds(60))
    await expire(session_id)
    assert (await get(session, session_id)).status == EXPIRED
    closed = await close(session, session_id)
    assert closed.status == EXPIRED
    assert not closed.HasField("close_time")


async def test_a_held_session_does_not_expire(session: Stub, expire: Change, lapse: Change) -> None:
    session_id = await open_session(session, ttl=seconds(60))
    await session.BeginTurn(turn(session_id))
    await expire(session_id)
    assert (await get(session, session_id)).status == ACTIVE
    await lapse(session_id)
    assert (await get(session, session_id)).status == EXPIRED


async def test_a_session_that_closed_stays_closed_past_its_expire_time(session: Stub, expire: Change) -> None:
    session_id = await open_session(session, ttl=seconds(60))
    await close(session, session_id)
    await expire(session_id)
    assert (await get(session, session_id)).status == CLOSED


async def test_an_append_changes_the_session(session: Stub) -> None:
    made = await opened(session)
    await session.AppendMessages(append(made.session_id, "a", "b", source=source()))
    after = await get(session, made.session_id)
    assert after.last_sequence == 2
    assert after.update_time.ToDatetime() > made.update_time.ToDatetime()
