"""Forks: another one's messages, shared and not copied, up to a place; and what becomes of them when that one goes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from typing import Any
from uuid import UUID

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minion.session.v1 import message_pb2 as messages
from minion.session.v1 import session_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_grpc import wire
from minion_postgres import Database
from minion_postgres.migrations import Migrations
from minion_session.forks.domain import Said, last_whole
from minion_session.messages.domain import Role
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase

from tests.minion_session.made import (
    ASSISTANT,
    USER,
    append,
    call,
    context_of,
    fork,
    got,
    listed,
    new_id,
    open_session,
    opened,
    put,
    result,
    seconds,
    source,
    struct,
    summary,
    text,
    turn,
    words,
)
from tests.minion_session.stage import Blobs, Stub, gateway, serving

MakeDatabase = Callable[..., Awaitable[ClonedDatabase]]
MIGRATIONS = resources.files("minion_session") / "migrations"


async def _delete(owner: Database, tenant_id: UUID, session_id: str) -> int:
    """Deletes a session as DeleteSession does: what its forks share is theirs first."""
    target = UUID(session_id)
    async with owner.transaction(tenant_id) as transaction:
        copied = await transaction.fetch_value("SELECT session.hand_down_messages($1, $2)", tenant_id, target)
        for table in ("workspace_entries", "messages", "sessions"):
            await transaction.execute(
                f"DELETE FROM session.{table} WHERE tenant_id = $1 AND session_id = $2",  # noqa: S608 - ours
                tenant_id,
                target,
            )
    return int(copied)


async def _own(owner: Database, session_id: str) -> list[int]:
    """Lists which messages a session holds as its own."""
    rows = await owner.fetch(
        "SELECT sequence FROM session.messages WHERE session_id = $1 ORDER BY sequence", UUID(session_id)
    )
    return [row["sequence"] for row in rows]


async def _said(session: Stub, *batch: str | messages.Message, **fields: Any) -> str:
    session_id = await open_session(session, **fields)
    await session.AppendMessages(append(session_id, *batch))
    return session_id


async def test_a_fork_begins_with_the_messages_of_its_parent(session: Stub, owner: Database) -> None:
    parent = await opened(session, display_name="A chat", metadata=struct(a=1), ttl=seconds(60))
    await session.AppendMessages(append(parent.session_id, "one", "two", "three"))
    made = await fork(session, parent.session_id, 2)
    assert made.session_id != parent.session_id
    assert (made.agent_id, made.user_id, made.display_name) == (parent.agent_id, parent.user_id, "A chat")
    assert (made.metadata, made.last_sequence) == (struct(a=1), 2)
    assert made.status == session_pb2.SESSION_STATUS_ACTIVE
    assert (made.parent_session_id, made.fork_sequence) == (parent.session_id, 2)
    assert not made.HasField("expire_time")
    assert made == (await session.GetSession(pb.GetSessionRequest(session_id=made.session_id))).session
    assert await _own(owner, made.session_id) == []
    assert list(await listed(session, made.session_id)) == list(await listed(session, parent.session_id))[:2]
    # From then on each goes its own way, without a gap.
    answer = await session.AppendMessages(append(made.session_id, "another three"))
    assert answer.first_sequence == 3
    await session.AppendMessages(append(parent.session_id, "four"))
    assert words(await listed(session, made.session_id)) == ["one", "two", "another three"]
    assert words(await listed(session, parent.session_id)) == ["one", "two", "three", "four"]
    assert not (await session.GetSession(pb.GetSessionRequest(session_id=parent.session_id))).session.parent_session_id


async def test_a_fork_may_have_a_name_a_life_and_an_id_of_its_own(session: Stub) -> None:
    parent, wanted = await _said(session, "one"), new_id()
    made = await fork(session, parent, fork_session_id=wanted, display_name="Another", ttl=seconds(60))
    assert (made.session_id, made.display_name, made.fork_sequence) == (wanted, "Another", 1)
    assert made.expire_time.seconds - made.create_time.seconds == 60
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "SESSION_ID_TAKEN"):
        await fork(session, parent, fork_session_id=wanted)


async def test_an_empty_session_may_be_forked_and_one_that_ended(session: Stub) -> None:
    empty = await open_session(session)
    made = await fork(session, empty)
    assert (made.parent_session_id, made.last_sequence) == (empty, 0)
    await session.AppendMessages(append(made.session_id, "one"))
    assert words(await listed(session, made.session_id)) == ["one"]
    await session.CloseSession(pb.CloseSessionRequest(session_id=empty))
    await fork(session, empty)


async def test_lists_and_contexts_reach_over_the_fork(session: Stub) -> None:
    parent = await _said(session, *[str(number) for number in range(1, 11)])
    child = (await fork(session, parent, 8)).session_id
    await session.AppendMessages(append(child, "child 9", "child 10", "child 11"))
    grandchild = (await fork(session, child, 10)).session_id
    await session.AppendMessages(append(grandchild, "grandchild 11"))
    expected = [*[str(number) for number in range(1, 9)], "child 9", "child 10", "grandchild 11"]
    for size in (1, 2, 3, 5, 100):
        for descending in (False, True):
            found: list[messages.Message] = []
            token = ""
            while True:
                page = await session.ListMessages(
                    pb.ListMessagesRequest(
                        session_id=grandchild, page_size=size, page_token=token, descending=descending
                    )
                )
                found += page.messages
                token = page.next_page_token
                if not token:
                    break
            assert words(found) == (expected[::-1] if descending else expected)
            assert sorted(message.sequence for message in found) == list(range(1, 12))
    assert words(await listed(session, grandchild, after_sequence=7)) == expected[7:]
    assert words(await listed(session, grandchild, after_sequence=9, descending=True)) == expected[7::-1]
    assert words((await context_of(session, grandchild)).messages) == expected
    assert words((await context_of(session, grandchild, max_messages=4)).messages) == expected[-4:]
    begun = await session.BeginTurn(turn(grandchild, "now", max_messages=5))
    assert words(begun.context) == [*expected[-4:], "now"]
    assert begun.session.parent_session_id == child
    assert words((await context_of(session, child, max_messages=2)).messages) == ["child 10", "child 11"]


async def test_the_question_of_a_turn_is_found_in_the_parent(session: Stub) -> None:
    steps = [said for number in range(20) for said in (call(f"c{number}"), result(f"c{number}"))]
    parent = await _said(session, "Look everywhere.", *steps)
    child = (await fork(session, parent, 21)).session_id
    more = [said for number in range(20) for said in (call(f"d{number}"), result(f"d{number}"))]
    await session.AppendMessages(append(child, *more))
    context = await context_of(session, child, max_messages=7)
    assert [message.sequence for message in context.messages] == [1, *range(56, 62)]


async def test_working_memory_is_copied(session: Stub) -> None:
    parent = await _said(session, "one")

    async def change(session_id: str, value: str) -> None:
        entry = pb.WorkspaceChange(key="plan", value=wire.to_value(value))
        await session.SetWorkspaceEntries(pb.SetWorkspaceEntriesRequest(session_id=session_id, changes=[entry]))

    async def plan(session_id: str) -> str:
        (entry,) = (await session.GetWorkspace(pb.GetWorkspaceRequest(session_id=session_id))).entries
        return entry.value.string_value

    await change(parent, "look")
    child = (await fork(session, parent)).session_id
    await change(parent, "leap")
    assert (await plan(child), await plan(parent)) == ("look", "leap")
    await change(child, "listen")
    assert (await plan(child), await plan(parent)) == ("listen", "leap")


async def test_summaries_of_the_stretch_are_seen(session: Stub) -> None:
    parent = await _said(session, *[text(str(number), token_count=100) for number in range(1, 11)])
    early = (await session.SaveSummary(summary(parent, 4, "one to four"))).summary
    await session.SaveSummary(summary(parent, 9, "one to nine"))
    child = (await fork(session, parent, 8)).session_id
    # What comes later is the parent's own.
    await session.SaveSummary(summary(parent, 5, "one to five"))
    found = (await session.ListSummaries(pb.ListSummariesRequest(session_id=child))).summaries
    assert [(one.summary_id, one.session_id, one.text) for one in found] == [(early.summary_id, child, "one to four")]
    context = await context_of(session, child, token_budget=350)
    assert context.summary.text == "one to four"
    assert words(context.messages) == ["6", "7", "8"]
    own = (await session.SaveSummary(summary(child, 6, "one to six"))).summary
    assert (await context_of(session, child, token_budget=350)).summary == own


async def test_blobs_of_the_stretch_are_seen(session: Stub, blobs: Blobs) -> None:
    parent = await open_session(session)
    early = await put(blobs, parent, b"early")
    answer = result("c1", "an excerpt")
    answer.parts[0].tool_result.blob_id = early.blob_id
    await session.AppendMessages(append(parent, "Read it.", call("c1"), answer))
    late = await put(blobs, parent, b"late")
    child = (await fork(session, parent)).session_id
    shown = (await listed(session, child))[2].parts[0].tool_result
    assert (await got(blobs, shown.blob_id))[1] == [b"early"]
    for owner in (parent, child):
        assert (await got(blobs, shown.blob_id, session_id=owner))[0].session_id == owner
    async with refused(grpc.StatusCode.NOT_FOUND, "BLOB_NOT_FOUND"):
        await got(blobs, shown.blob_id, session_id=await open_session(session))
    # It is the fork's as well; the same bytes are not stored again.
    picture = messages.Media(media_type="image/png", blob_id=early.blob_id)
    await session.AppendMessages(append(child, messages.Message(role=USER, parts=[messages.Part(media=picture)])))
    assert (await put(blobs, child, b"early")).blob_id == early.blob_id
    # What came after the last message it shares is not.
    picture.blob_id = late.blob_id
    async with refused(grpc.StatusCode.NOT_FOUND, "BLOB_NOT_FOUND"):
        await session.AppendMessages(append(child, messages.Message(role=USER, parts=[messages.Part(media=picture)])))


async def test_a_fork_never_parts_a_call_from_its_result(session: Stub) -> None:
    parent = await _said(
        session, "one", call("c1", "c2"), result("c1"), result("c2"), text("Noon.", ASSISTANT), call("c3")
    )
    for at, whole in ((2, 1), (3, 1), (6, 5), (0, 5)):
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "FORK_INSIDE_EXCHANGE") as refusal:
            await fork(session, parent, at)
        assert refusal.metadata == {"last_whole_sequence": str(whole)}
        await fork(session, parent, whole)
    await fork(session, parent, 4)
    # Once somebody has spoken since, no result will come.
    await session.AppendMessages(append(parent, "Never mind."))
    await fork(session, parent)
    await fork(session, parent, 6)


async def test_a_place_that_was_not_reached_is_refused(session: Stub) -> None:
    parent = await _said(session, "one", "two")
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "SEQUENCE_OUT_OF_RANGE") as refusal:
        await fork(session, parent, 3)
    assert refusal.metadata == {"last_sequence": "2"}


async def test_a_replayed_fork_opens_nothing(session: Stub) -> None:
    parent, request_id = await _said(session, "one"), new_id()
    first = await fork(session, parent, request_id=request_id)
    await session.AppendMessages(append(first.session_id, "two"))
    assert await fork(session, parent, request_id=request_id) == first
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await fork(session, parent, 1, request_id=request_id)
    listed_ = await session.ListSessions(pb.ListSessionsRequest(page_size=10))
    assert {one.session_id for one in listed_.sessions} == {parent, first.session_id}
    assert {one.parent_session_id for one in listed_.sessions} == {"", parent}


async def test_what_is_kept_of_a_fork_for_replays_is_found_by_its_user(session: Stub, owner: Database) -> None:
    parent, request_id = await _said(session, "one", user_id="grace"), new_id()
    await fork(session, parent, request_id=request_id)
    subject = "SELECT subject FROM session.idempotency_keys WHERE request_id = $1"
    assert await owner.fetch_value(subject, UUID(request_id)) == "grace"


async def test_an_absent_session_and_a_foreign_one_are_not_forked(session: Stub, stranger: Stub) -> None:
    parent = await _said(session, "one")
    for stub, wanted in ((session, new_id()), (stranger, parent)):
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
            await fork(stub, wanted)


@pytest.mark.parametrize(
    ("fields", "faulty"),
    [
        ({"session_id": "x"}, {"session_id"}),
        ({"at_sequence": -1}, {"at_sequence"}),
        ({"fork_session_id": "x"}, {"fork_session_id"}),
        ({"display_name": "x" * 201}, {"display_name"}),
        ({"ttl": seconds(0.5)}, {"ttl"}),
        ({"ttl": seconds(3_650 * 86_400 + 1)}, {"ttl"}),
        ({"request_id": "x"}, {"request_id"}),
    ],
)
async def test_what_breaks_a_limit_is_refused(session: Stub, fields: dict[str, Any], faulty: set[str]) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await session.ForkSession(pb.ForkSessionRequest(**{"session_id": new_id(), **fields}))
    assert set(refusal.violations) == faulty


async def test_a_step_that_the_parent_took_is_the_parents(session: Stub, owner: Database, tenant_id: UUID) -> None:
    parent, step = await open_session(session), source()
    request = turn(parent, "hello", source=step)
    await session.BeginTurn(request)
    child = (await fork(session, parent)).session_id
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await session.AppendMessages(append(child, "again", source=step))
    await _delete(owner, tenant_id, parent)
    # The copy tells whose it is, and takes no step.
    (copy,) = await listed(session, child)
    assert (copy.run_id, words([copy])) == (step.run_id, ["hello"])
    async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        await session.BeginTurn(request)
    await session.AppendMessages(append(child, "two", source=source(step.run_id, 2)))


async def test_what_forks_share_outlives_their_parent(
    session: Stub, blobs: Blobs, owner: Database, tenant_id: UUID
) -> None:
    parent = await open_session(session)
    blob = await put(blobs, parent, b"bytes")
    picture = messages.Media(media_type="image/png", blob_id=blob.blob_id)
    await session.AppendMessages(
        append(parent, "one", messages.Message(role=USER, parts=[messages.Part(media=picture)]), "three", "four")
    )
    short, long = (await fork(session, parent, 2)).session_id, (await fork(session, parent, 3)).session_id
    await session.AppendMessages(append(long, "long four"))
    grandchild = (await fork(session, long, 4)).session_id
    shallow = (await fork(session, long, 1)).session_id
    before = {one: list(await listed(session, one)) for one in (short, long, grandchild, shallow)}
    # One copy of what is shared, however many share it.
    assert await _delete(owner, tenant_id, parent) == 3
    assert {one: list(await listed(session, one)) for one in before} == before
    assert await _own(owner, long) == [1, 2, 3, 4]
    assert await _own(owner, short) == []
    assert (await got(blobs, blob.blob_id))[1] == [b"bytes"]
    for one in (short, long):
        left = (await session.GetSession(pb.GetSessionRequest(session_id=one))).session
        assert (left.parent_session_id, left.fork_sequence) == ("", 0)
    left = (await session.GetSession(pb.GetSessionRequest(session_id=grandchild))).session
    assert (left.parent_session_id, left.fork_sequence) == (long, 4)
    assert await _delete(owner, tenant_id, long) == 4
    assert {one: list(await listed(session, one)) for one in (short, grandchild, shallow)} == {
        one: before[one] for one in (short, grandchild, shallow)
    }
    await session.AppendMessages(append(short, "short three"))
    assert words(await listed(session, short))[::2] == ["one", "short three"]
    for one in (short, grandchild, shallow):
        await _delete(owner, tenant_id, one)
    assert await owner.fetch_value("SELECT count(*) FROM session.messages WHERE tenant_id = $1", tenant_id) == 0
    assert await owner.fetch_value("SELECT count(*) FROM session.blob_contents WHERE tenant_id = $1", tenant_id) == 0


async def test_a_session_amid_a_chain_may_go(session: Stub, owner: Database, tenant_id: UUID) -> None:
    first = await _said(session, "one", "two")
    second = (await fork(session, first, 2)).session_id
    await session.AppendMessages(append(second, "three", "four"))
    third = (await fork(session, second, 4)).session_id
    await session.AppendMessages(append(third, "five"))
    # Only what the one that goes holds itself is copied.
    assert await _delete(owner, tenant_id, second) == 2
    assert await _own(owner, third) == [3, 4, 5]
    assert words(await listed(session, third)) == ["one", "two", "three", "four", "five"]
    assert await _delete(owner, tenant_id, first) == 2
    assert words(await listed(session, third)) == ["one", "two", "three", "four", "five"]
    assert await _delete(owner, tenant_id, third) == 0


async def test_forks_made_while_their_parent_goes_are_whole(session: Stub, owner: Database, tenant_id: UUID) -> None:
    for _ in range(6):
        parent = await _said(session, "one", "two", "three")
        child = (await fork(session, parent, 3)).session_id
        await session.AppendMessages(append(child, "four"))

        async def attempt(of: str, at: int) -> str | None:
            try:
                return (await fork(session, of, at)).session_id
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.NOT_FOUND  # noqa: PT017 - the parent may have gone
                return None

        made = await asyncio.gather(
            attempt(parent, 2),
            attempt(child, 2),
            attempt(child, 4),
            _delete(owner, tenant_id, parent),
            attempt(parent, 3),
        )
        for place, one in zip((2, 2, 4, None, 3), made, strict=True):
            if isinstance(one, str) and place is not None:
                assert words(await listed(session, one)) == ["one", "two", "three", "four"][:place]
        assert isinstance(made[1], str)


async def test_the_way_down_gives_forks_what_they_share(database_factory: MakeDatabase, tenant_id: UUID) -> None:
    database = await database_factory()
    async with serving(database) as replica, gateway(replica, tenant_id) as session:
        parent = await _said(session, "one", "two", "three")
        child = (await fork(session, parent, 2)).session_id
        await session.AppendMessages(append(child, "child three", source=source()))
        grandchild = (await fork(session, child, 3)).session_id
        empty = (await fork(session, grandchild, 1)).session_id
    migrations, dsn = Migrations("session", MIGRATIONS), database.dsn("session", "owner")
    behind = len(migrations.steps) - next(
        place for place, step in enumerate(migrations.steps) if step.name.endswith("_contexts")
    )
    await migrations.down(dsn, steps=behind)
    async with await database.connect("session", "owner") as owner:
        assert await _own(owner, child) == await _own(owner, grandchild) == [1, 2, 3]
        assert (await _own(owner, parent), await _own(owner, empty)) == ([1, 2, 3], [1])
    await migrations.up(dsn)
    async with serving(database) as replica, gateway(replica, tenant_id) as session:
        for one in (child, grandchild):
            assert words(await listed(session, one)) == ["one", "two", "child three"]


# What happens next to a family of sessions: somebody appends, forks at a place, or is deleted.
_EVENTS = st.lists(
    st.tuples(st.sampled_from(["append", "append", "fork", "fork", "delete"]), st.integers(0, 9), st.integers(0, 9)),
    min_size=3,
    max_size=14,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(events=_EVENTS)
async def test_a_family_of_forks_keeps_to_its_model(
    session: Stub, owner: Database, tenant_id: UUID, events: list[tuple[str, int, int]]
) -> None:
    root = await _said(session, "root 1", "root 2")
    model: dict[str, list[str]] = {root: ["root 1", "root 2"]}
    for index, (event, who, where) in enumerate(events):
        if not model:
            return
        one = list(model)[who % len(model)]
        if event == "append":
            said = [f"{index}.{number}" for number in range(1 + where % 3)]
            await session.AppendMessages(append(one, *said))
            model[one] += said
        elif event == "fork":
            at = where % (len(model[one]) + 1)
            made = await fork(session, one, at)
            model[made.session_id] = model[one][: at or None]
        else:
            await _delete(owner, tenant_id, one)
            del model[one]
        for session_id, said in model.items():
            found = await listed(session, session_id)
            assert words(found) == said
            assert [message.sequence for message in found] == list(range(1, len(said) + 1))
    for session_id, said in model.items():
        assert words((await context_of(session, session_id, max_messages=3)).messages) == said[-3:]
        newest = await listed(session, session_id, descending=True, page_size=4)
        assert words(newest) == said[::-1][:4]


def _told(*spoken: tuple[Role, Sequence[str]]) -> list[Said]:
    said = []
    for sequence, (role, ids) in enumerate(spoken, start=1):
        calls, results = (tuple(ids), ()) if role is Role.ASSISTANT else ((), tuple(ids))
        said.append(Said(sequence, role, calls, results))
    return said


_U, _A, _T = Role.USER, Role.ASSISTANT, Role.TOOL


@pytest.mark.parametrize(
    ("spoken", "wholes"),
    [
        ([(_U, ""), (_A, ""), (_U, "")], [1, 2, 3]),
        ([(_U, ""), (_A, "a"), (_T, "a"), (_A, "")], [1, 1, 3, 4]),
        ([(_U, ""), (_A, "ab"), (_T, "b"), (_T, "a")], [1, 1, 1, 4]),
        # Open at the end; not open any more once somebody has spoken.
        ([(_U, ""), (_A, "a")], [1, 1]),
        ([(_U, ""), (_A, "ab"), (_T, "a")], [1, 1, 1]),
        ([(_U, ""), (_A, "a"), (_U, "")], [1, 2, 3]),
        # A late result binds all in between.
        ([(_U, ""), (_A, "a"), (_U, ""), (_T, "a"), (_U, "")], [1, 1, 1, 4, 5]),
        # Two that reach into each other.
        ([(_A, "a"), (_A, "b"), (_T, "a"), (_T, "b"), (_U, "")], [0, 0, 0, 4, 5]),
    ],
)
def test_the_last_whole_place(spoken: list[tuple[Role, str]], wholes: list[int]) -> None:
    said = _told(*spoken)
    assert [last_whole(said, place, len(said)) for place in range(1, len(said) + 1)] == wholes
