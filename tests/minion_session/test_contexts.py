"""GetContext over the wire: what comes out is what a provider takes, whatever went in."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minion.session.v1 import message_pb2 as messages
from minion.session.v1 import session_service_pb2 as pb
from minion_errors import Violations
from minion_session.messages import parts as part_convert
from minion_session.messages.convert import to_proto
from minion_session.messages.domain import MediaPart, Message, Role, ToolResultPart
from minion_testing.errors import refused

from tests.minion_session.histories import SAID, transcripts
from tests.minion_session.made import (
    ASSISTANT,
    append,
    call,
    context_of,
    listed,
    new_id,
    open_session,
    put,
    result,
    source,
    struct,
    summary,
    text,
    turn,
    words,
)
from tests.minion_session.providers import faults
from tests.minion_session.stage import Blobs, Stub

Change = Callable[[str], Awaitable[None]]


async def test_a_context_holds_the_newest_messages_that_fit(session: Stub) -> None:
    session_id = await open_session(session, metadata=struct(a=1))
    await session.AppendMessages(append(session_id, *[text(str(number), token_count=100) for number in range(1, 10)]))
    everything = await context_of(session, session_id)
    assert list(everything.messages) == list(await listed(session, session_id))
    assert (everything.token_count, everything.truncated) == (900, False)
    assert everything.session == (await session.GetSession(pb.GetSessionRequest(session_id=session_id))).session
    assert not everything.HasField("summary")
    newest = await context_of(session, session_id, token_budget=350)
    assert (words(newest.messages), newest.token_count, newest.truncated) == (["7", "8", "9"], 300, True)
    few = await context_of(session, session_id, max_messages=2)
    assert (words(few.messages), few.truncated) == (["8", "9"], True)


async def test_an_empty_session_has_an_empty_context(session: Stub) -> None:
    context = await context_of(session, await open_session(session))
    assert (list(context.messages), context.token_count, context.truncated) == ([], 0, False)


async def test_a_context_changes_nothing_and_needs_no_active_session(session: Stub, expire: Change) -> None:
    closed, expired = await open_session(session), await open_session(session)
    for session_id in (closed, expired):
        await session.AppendMessages(append(session_id, "hello"))
    await session.CloseSession(pb.CloseSessionRequest(session_id=closed))
    await expire(expired)
    for session_id in (closed, expired):
        before = (await session.GetSession(pb.GetSessionRequest(session_id=session_id))).session
        context = await context_of(session, session_id)
        assert words(context.messages) == ["hello"]
        assert context.session == before


async def test_a_call_in_flight_is_given_a_result_that_says_so(session: Stub) -> None:
    session_id, run = await open_session(session), source()
    await session.BeginTurn(turn(session_id, "What time is it?", source=run))
    await session.AppendMessages(append(session_id, call("c1", "c2"), source=source(run.run_id, 2)))
    open_ = await context_of(session, session_id)
    assert [message.sequence for message in open_.messages] == [1, 2, 0]
    made = open_.messages[2]
    assert made.metadata == struct(minion_synthetic=True)
    assert [part.tool_result.tool_call_id for part in made.parts] == ["c1", "c2"]
    assert all(part.tool_result.is_error for part in made.parts)
    # It isn't stored, and goes when the results come.
    assert len(await listed(session, session_id)) == 2
    await session.AppendMessages(append(session_id, result("c2"), result("c1"), source=source(run.run_id, 3)))
    closed = await context_of(session, session_id)
    assert [message.sequence for message in closed.messages] == [1, 2, 3, 4]


async def test_a_huge_result_is_cut_and_names_its_blob(session: Stub, blobs: Blobs) -> None:
    session_id = await open_session(session)
    blob = await put(blobs, session_id, b"x" * 400_000)
    answer = result("c1", "x" * 200_000)
    answer.parts[0].tool_result.blob_id = blob.blob_id
    await session.AppendMessages(append(session_id, "Read it.", call("c1"), answer, text("Done.", ASSISTANT)))
    context = await context_of(session, session_id)
    assert [message.sequence for message in context.messages] == [1, 2, 3, 4]
    shown = context.messages[2].parts[0].tool_result
    assert len(shown.output.string_value) < 20_000
    assert f"the whole of it is the blob {blob.blob_id}" in shown.output.string_value
    assert shown.blob_id == blob.blob_id
    assert 3_000 < context.token_count <= 8_000
    # What is stored is whole.
    stored = (await listed(session, session_id))[2].parts[0].tool_result
    assert len(stored.output.string_value) == 200_000


async def test_a_last_message_that_breaks_the_budget_is_refused(session: Stub) -> None:
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, text("hello", token_count=257)))
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_BUDGET_TOO_SMALL") as refusal:
        await context_of(session, session_id, token_budget=256)
    assert refusal.metadata == {"token_count": "257", "token_budget": "256"}
    assert (await context_of(session, session_id, token_budget=257)).token_count == 257


async def test_a_question_is_found_far_before_the_window(session: Stub) -> None:
    session_id = await open_session(session)
    steps = [said for number in range(40) for said in (call(f"c{number}"), result(f"c{number}"))]
    await session.AppendMessages(append(session_id, "Look everywhere.", *steps))
    context = await context_of(session, session_id, max_messages=11)
    assert [message.sequence for message in context.messages] == [1, *range(72, 82)]
    assert context.truncated
    request = turn(session_id, "And?", max_messages=11)
    begun = await session.BeginTurn(request)
    assert [message.sequence for message in begun.context] == [1, *range(74, 83)]
    # Beyond a thousand messages it isn't looked for: the context is that of the new turn.
    for at in range(0, 1_120, 80):
        more = [said for number in range(at, at + 40) for said in (call(f"d{number}"), result(f"d{number}"))]
        await session.AppendMessages(append(session_id, *more))
    late = await context_of(session, session_id)
    assert list(late.messages) == []
    assert late.truncated


async def test_the_summary_comes_when_what_it_covers_is_left_out(session: Stub) -> None:
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, *[text(str(number), token_count=100) for number in range(1, 11)]))
    saved = (await session.SaveSummary(summary(session_id, 6, "one to six", token_count=50))).summary
    assert not (await context_of(session, session_id)).HasField("summary")
    short = await context_of(session, session_id, token_budget=400)
    assert short.summary == saved
    assert (words(short.messages), short.token_count) == (["8", "9", "10"], 350)
    # The newest one counts.
    newer = (await session.SaveSummary(summary(session_id, 8, "one to eight", token_count=150))).summary
    shorter = await context_of(session, session_id, token_budget=400)
    assert shorter.summary == newer
    assert words(shorter.messages) == ["9", "10"]


async def test_a_turn_begun_again_has_the_summary_of_then(session: Stub) -> None:
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, *[text(str(number), token_count=100) for number in range(1, 11)]))
    old = (await session.SaveSummary(summary(session_id, 6, "then", token_count=50))).summary
    request = turn(session_id, message=text("now", token_count=100), token_budget=400)
    first = await session.BeginTurn(request)
    assert (first.summary, words(first.context), first.context_token_count) == (old, ["9", "10", "now"], 350)
    assert first.truncated
    # Even one that was saved before anybody spoke again, and one after.
    await session.SaveSummary(summary(session_id, 8, "at once", token_count=50))
    await session.AppendMessages(append(session_id, text("after", ASSISTANT), source=source(request.source.run_id, 2)))
    await session.SaveSummary(summary(session_id, 12, "later", token_count=50))
    again = await session.BeginTurn(request)
    assert (again.summary, again.context) == (first.summary, first.context)
    assert (await context_of(session, session_id, token_budget=256)).summary.text == "later"


async def test_an_absent_session_and_a_foreign_one_have_no_context(session: Stub, stranger: Stub) -> None:
    session_id = await open_session(session)
    for stub, wanted in ((session, new_id()), (stranger, session_id)):
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
            await context_of(stub, wanted)


@pytest.mark.parametrize(
    ("fields", "faulty"),
    [
        ({"session_id": "x"}, {"session_id"}),
        ({"token_budget": 255}, {"token_budget"}),
        ({"token_budget": 1_000_001}, {"token_budget"}),
        ({"token_budget": -1}, {"token_budget"}),
        ({"max_messages": -1}, {"max_messages"}),
        ({"max_messages": 1_001}, {"max_messages"}),
    ],
)
async def test_what_breaks_a_limit_is_refused(session: Stub, fields: dict[str, Any], faulty: set[str]) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await session.GetContext(pb.GetContextRequest(**{"session_id": new_id(), **fields}))
    assert set(refusal.violations) == faulty


async def test_the_largest_context_fits_one_reply(session: Stub) -> None:
    session_id = await open_session(session)
    for _ in range(4):
        await session.AppendMessages(append(session_id, *[text("x" * 250_000, token_count=1)] * 4))
    await session.SaveSummary(summary(session_id, 1, "ä" * 100_000))
    context = await context_of(session, session_id, token_budget=1_000_000, max_messages=1_000)
    assert context.summary.text == "ä" * 100_000
    assert context.ByteSize() < 3.5 * 1024 * 1024
    assert len(context.messages) == 12


def _stored(message: messages.Message) -> Message:
    violations = Violations()
    role = Role[messages.MessageRole.Name(message.role).removeprefix("MESSAGE_ROLE_")]
    parts = [part_convert.from_proto(part, "", role, violations) for part in message.parts]
    violations.raise_if_any()
    return Message(
        message.sequence, role, "", tuple(part for part in parts if part is not None), message.token_count, SAID
    )


def _without_blobs(history: list[Message]) -> list[messages.Message]:
    """Makes what is appended; blobs would have to be there."""
    made = []
    for message in history:
        sent = to_proto(message)
        for part, stored in zip(sent.parts, message.parts, strict=True):
            if isinstance(stored, ToolResultPart):
                part.tool_result.ClearField("blob_id")
            elif isinstance(stored, MediaPart) and stored.blob_id is not None:
                part.media.uri = "https://pictures.example/2.pdf"
        made.append(messages.Message(role=sent.role, parts=sent.parts, token_count=sent.token_count))
    return made


@pytest_asyncio.fixture(loop_scope="session")
async def warm(session: Stub) -> Stub:
    """The service over a channel that is connected: making histories keeps the loop busy."""
    await open_session(session)
    return session


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(history=transcripts(most=12), budget=st.sampled_from([256, 1_000, 8_000]), most=st.integers(1, 14))
async def test_every_context_over_the_wire_is_accepted(
    warm: Stub, history: list[Message], budget: int, most: int
) -> None:
    session_id = await open_session(warm)
    if history:
        await warm.AppendMessages(append(session_id, *_without_blobs(history)))
    try:
        context = await context_of(warm, session_id, token_budget=budget, max_messages=most)
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT  # noqa: PT017 - a budget may be too small
    else:
        assert faults([_stored(message) for message in context.messages]) == []
    begun = await warm.BeginTurn(turn(session_id, "now", token_budget=budget, max_messages=most))
    assert faults([_stored(message) for message in begun.context]) == []
    assert begun.context[-1] == begun.message
    assert begun.context_token_count <= budget
    assert len(begun.context) <= most
