"""Turns: the user's message, the hold, and the context, in one call that may be repeated for ever."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import pytest
from minion.session.v1 import message_pb2 as messages
from minion.session.v1 import session_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_testing.errors import refused

from tests.minion_session.made import (
    ASSISTANT,
    TOOL,
    append,
    call,
    listed,
    new_id,
    open_session,
    result,
    seconds,
    source,
    struct,
    text,
    turn,
    words,
)
from tests.minion_session.stage import Stub

Change = Callable[[str], Awaitable[None]]


def sequences(found: Sequence[messages.Message]) -> list[int]:
    return [message.sequence for message in found]


async def end(session: Stub, session_id: str, run_id: str) -> None:
    await session.EndTurn(pb.EndTurnRequest(session_id=session_id, run_id=run_id))


async def test_a_turn_stores_the_message_and_shows_the_context(session: Stub) -> None:
    session_id, step = await open_session(session, metadata=struct(a=1)), source()
    await session.AppendMessages(append(session_id, "Hello.", text("Hi, Ada.", ASSISTANT, token_count=9)))
    message = text("And now?", author="ada", metadata=struct(device="phone"))
    begun = await session.BeginTurn(turn(session_id, message=message, source=step))
    assert begun.session.last_sequence == 3
    assert begun.session.metadata == struct(a=1)
    assert begun.session == (await session.GetSession(pb.GetSessionRequest(session_id=session_id))).session
    assert (begun.message.sequence, begun.message.run_id, begun.message.author) == (3, step.run_id, "ada")
    assert begun.message.metadata == struct(device="phone")
    assert words(begun.context) == ["Hello.", "Hi, Ada.", "And now?"]
    assert begun.context[-1] == begun.message
    assert list(begun.context) == list(await listed(session, session_id))
    assert begun.context_token_count == 6 + 9 + 6
    assert not begun.truncated


async def test_a_replayed_turn_returns_the_context_of_then(session: Stub) -> None:
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, "before"))
    request = turn(session_id, "now")
    first = await session.BeginTurn(request)
    await session.AppendMessages(append(session_id, "after", source=source(request.source.run_id, 2)))
    again = await session.BeginTurn(request)
    assert (again.message, again.context) == (first.message, first.context)
    assert again.session.last_sequence == 3
    await end(session, session_id, request.source.run_id)
    await session.CloseSession(pb.CloseSessionRequest(session_id=session_id))
    # For ever: whatever became of the session and the hold.
    last = await session.BeginTurn(request)
    assert (last.message, last.context) == (first.message, first.context)
    assert last.session.status == session_pb2.SESSION_STATUS_CLOSED
    assert words(await listed(session, session_id)) == ["before", "now", "after"]


async def test_a_replay_takes_no_hold_that_was_released(session: Stub) -> None:
    session_id, request = await open_session(session), turn("")
    request.session_id = session_id
    await session.BeginTurn(request)
    await end(session, session_id, request.source.run_id)
    await session.BeginTurn(request)
    await session.BeginTurn(turn(session_id, "the next run may begin"))
    # Nor one that another run has taken since.
    await session.BeginTurn(request)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_HELD"):
        await session.BeginTurn(turn(session_id))


async def test_a_replay_renews_the_hold(session: Stub, lapse: Change) -> None:
    session_id, request = await open_session(session), turn("", hold=seconds(60))
    request.session_id = session_id
    await session.BeginTurn(request)
    await lapse(session_id)
    await session.BeginTurn(request)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_HELD") as refusal:
        await session.BeginTurn(turn(session_id))
    assert refusal.metadata == {"session_id": session_id, "run_id": request.source.run_id}


async def test_one_run_holds_a_session(session: Stub, lapse: Change) -> None:
    session_id, first = await open_session(session), source()
    await session.BeginTurn(turn(session_id, source=first))
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_HELD"):
        await session.BeginTurn(turn(session_id, "refused"))
    await session.BeginTurn(turn(session_id, "the same run", source=source(first.run_id, 2)))
    await lapse(session_id)
    await session.BeginTurn(turn(session_id, "the hold had lapsed"))
    assert words(await listed(session, session_id)) == ["hello", "the same run", "the hold had lapsed"]


async def test_ending_a_turn_releases_its_own_hold_alone(session: Stub) -> None:
    session_id, request = await open_session(session), turn("")
    request.session_id = session_id
    await session.BeginTurn(request)
    await end(session, session_id, new_id())
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_HELD"):
        await session.BeginTurn(turn(session_id))
    await end(session, session_id, request.source.run_id)
    await end(session, session_id, request.source.run_id)
    await session.BeginTurn(turn(session_id))


async def test_a_closed_or_expired_session_begins_no_turn(session: Stub, expire: Change) -> None:
    closed, expired = await open_session(session), await open_session(session, ttl=seconds(60))
    await session.CloseSession(pb.CloseSessionRequest(session_id=closed))
    await expire(expired)
    for session_id, status in ((closed, "CLOSED"), (expired, "EXPIRED")):
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_ACTIVE") as refusal:
            await session.BeginTurn(turn(session_id))
        assert refusal.metadata["status"] == status


async def test_an_absent_session_and_a_foreign_one_begin_no_turn(session: Stub, stranger: Stub) -> None:
    session_id = await open_session(session)
    for stub, wanted in ((session, new_id()), (stranger, session_id)):
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
            await stub.BeginTurn(turn(wanted))
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
            await end(stub, wanted, new_id())


async def test_a_step_that_did_something_else_begins_no_turn(session: Stub) -> None:
    session_id, step = await open_session(session), source()
    await session.AppendMessages(append(session_id, text("an answer", ASSISTANT), source=step))
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await session.BeginTurn(turn(session_id, source=step))
    request = turn(session_id)
    await session.BeginTurn(request)
    request.session_id = await open_session(session)
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await session.BeginTurn(request)


async def test_only_services_begin_and_end_turns(session: Stub, client: tuple[Stub, grpc.aio.Metadata]) -> None:
    session_id = await open_session(session)
    stub, metadata = client
    async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"):
        await stub.BeginTurn(turn(session_id), metadata=metadata)
    async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"):
        await stub.EndTurn(pb.EndTurnRequest(session_id=session_id, run_id=new_id()), metadata=metadata)


async def test_the_context_keeps_to_its_tokens_and_messages(session: Stub) -> None:
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, *[text(str(number), token_count=100) for number in range(1, 10)]))

    async def shown(**fields: Any) -> tuple[list[int], int, bool]:
        request = turn(session_id, message=text("now", token_count=100), **fields)
        begun = await session.BeginTurn(request)
        await end(session, session_id, request.source.run_id)
        return sequences(begun.context), begun.context_token_count, begun.truncated

    assert await shown(token_budget=400) == ([7, 8, 9, 10], 400, True)
    assert await shown(token_budget=399) == ([9, 10, 11], 300, True)
    assert await shown(max_messages=2) == ([11, 12], 200, True)
    assert await shown() == (list(range(1, 14)), 1_300, False)


async def test_a_message_larger_than_the_budget_is_refused(session: Stub) -> None:
    session_id = await open_session(session)
    request = turn(session_id, message=text("now", token_count=257), token_budget=256)
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_BUDGET_TOO_SMALL") as refusal:
        await session.BeginTurn(request)
    assert refusal.metadata == {"token_count": "257", "token_budget": "256"}
    assert await listed(session, session_id) == []
    request.message.token_count = 256
    assert words((await session.BeginTurn(request)).context) == ["now"]


async def test_a_repeat_whose_budget_the_stored_message_breaks_is_refused(session: Stub) -> None:
    request = turn(await open_session(session), message=text("a long story", token_count=1_000))
    await session.BeginTurn(request)
    request.message.CopyFrom(text("short"))
    request.token_budget = 256
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_BUDGET_TOO_SMALL") as refusal:
        await session.BeginTurn(request)
    assert refusal.metadata == {"token_count": "1000", "token_budget": "256"}


async def test_a_context_is_small_enough_to_be_sent(session: Stub) -> None:
    session_id = await open_session(session)
    for _ in range(5):
        await session.AppendMessages(append(session_id, *[text("x" * 250_000, token_count=1)] * 4))
    begun = await session.BeginTurn(turn(session_id))
    assert begun.ByteSize() < 3.1 * 1024 * 1024
    assert sequences(begun.context) == list(range(9, 22))
    assert begun.truncated


async def test_calls_and_results_are_never_parted(session: Stub) -> None:
    session_id = await open_session(session)
    dangling = call("lost", words="I would have looked.")
    await session.AppendMessages(
        append(session_id, "one", call("c1", "c2"), result("c1"), result("c2"), text("Noon.", ASSISTANT), dangling)
    )

    async def shown(max_messages: int) -> list[int]:
        request = turn(session_id, max_messages=max_messages)
        begun = await session.BeginTurn(request)
        await end(session, session_id, request.source.run_id)
        (lost,) = [message for message in begun.context if message.metadata]
        assert lost.metadata == struct(minion_synthetic=True)
        assert lost.parts[0].tool_result.tool_call_id == "lost"
        assert lost.parts[0].tool_result.is_error
        return sequences(begun.context)

    assert await shown(9) == [1, 2, 3, 4, 5, 6, 0, 7]
    assert await shown(9) == [1, 2, 3, 4, 5, 6, 0, 7, 8]
    # Now the exchange of 2, 3 and 4 doesn't fit whole, and the question keeps its place.
    assert await shown(9) == [1, 5, 6, 0, 7, 8, 9]


@pytest.mark.parametrize(
    ("fields", "faulty"),
    [
        ({"session_id": "x"}, {"session_id"}),
        ({"message": None}, {"message", "message.role", "message.parts"}),
        ({"message": text("x", ASSISTANT)}, {"message.role"}),
        ({"message": call("c1")}, {"message.role"}),
        ({"message": messages.Message(role=TOOL)}, {"message.role", "message.parts"}),
        ({"message": text("x" * 256 * 1024)}, {"message.parts"}),
        ({"source": None}, {"source", "source.run_id", "source.step_sequence"}),
        ({"source": messages.RunSource(run_id=new_id())}, {"source.step_sequence"}),
        ({"hold": seconds(0.9)}, {"hold"}),
        ({"hold": seconds(86_401)}, {"hold"}),
        ({"token_budget": 255}, {"token_budget"}),
        ({"token_budget": 1_000_001}, {"token_budget"}),
        ({"max_messages": -1}, {"max_messages"}),
        ({"max_messages": 1_001}, {"max_messages"}),
    ],
)
async def test_begin_refuses_what_breaks_a_limit(session: Stub, fields: dict[str, Any], faulty: set[str]) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await session.BeginTurn(turn(new_id(), **fields))
    assert set(refusal.violations) == faulty


async def test_begin_takes_what_meets_each_limit(session: Stub) -> None:
    session_id = await open_session(session)
    widest = turn(session_id, hold=seconds(86_400), token_budget=1_000_000, max_messages=1_000)
    await session.BeginTurn(widest)
    await end(session, session_id, widest.source.run_id)
    narrowest = turn(session_id, hold=seconds(1), token_budget=256, max_messages=1)
    assert sequences((await session.BeginTurn(narrowest)).context) == [2]


async def test_end_refuses_ids_that_are_none(session: Stub) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await end(session, "x", "")
    assert set(refusal.violations) == {"session_id", "run_id"}
