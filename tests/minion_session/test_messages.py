"""Messages: appended once, in gapless order, listed in both directions."""

from collections.abc import Awaitable, Callable

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct, Value
from minion.session.v1 import message_pb2 as messages
from minion.session.v1 import session_service_pb2 as pb
from minion_testing.errors import refused

from tests.minion_session.made import (
    ASSISTANT,
    SYSTEM,
    TOOL,
    USER,
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


async def test_messages_read_as_they_were_appended(session: Stub) -> None:
    session_id = await open_session(session)
    sent = [
        text("Be brief.", SYSTEM),
        text("What time is it? ⏰", author="ada", token_count=7, metadata=struct(device="phone")),
        call("c1", "c2", words="Let me look."),
        result("c1", {"hour": 12, "exact": 12.5, "zones": ["UTC", None, True]}),
        result("c2", None),
        text("Noon.", ASSISTANT),
        messages.Message(role=USER, parts=[messages.Part(text="Thanks."), messages.Part(text="And there?")]),
    ]
    appended = await session.AppendMessages(append(session_id, *sent))
    assert (appended.first_sequence, appended.last_sequence) == (1, 7)
    stored = await listed(session, session_id)
    for sequence, (before, after) in enumerate(zip(sent, stored, strict=True), start=1):
        assert (after.sequence, after.role, after.author) == (sequence, before.role, before.author)
        assert list(after.parts) == list(before.parts)
        assert after.metadata == before.metadata
        assert after.create_time == appended.create_time
        assert after.run_id == ""
    assert stored[1].token_count == 7


async def test_tokens_are_estimated_where_none_are_given(session: Stub) -> None:
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, "", "four", "fünf!", text("x" * 400)))
    assert [message.token_count for message in await listed(session, session_id)] == [4, 5, 6, 104]


async def test_what_the_service_gives_is_not_taken_from_the_caller(session: Stub) -> None:
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, text("hello", sequence=17, run_id=new_id())))
    (stored,) = await listed(session, session_id)
    assert (stored.sequence, stored.run_id) == (1, "")


async def test_replayed_append_stores_nothing_twice(session: Stub) -> None:
    session_id = await open_session(session)
    request = append(session_id, "hello", "there", request_id=new_id())
    first = await session.AppendMessages(request)
    await session.AppendMessages(append(session_id, "meanwhile"))
    assert await session.AppendMessages(request) == first
    assert words(await listed(session, session_id)) == ["hello", "there", "meanwhile"]


async def test_a_replay_answers_though_the_session_closed(session: Stub) -> None:
    session_id = await open_session(session)
    request = append(session_id, "hello", request_id=new_id())
    first = await session.AppendMessages(request)
    await session.CloseSession(pb.CloseSessionRequest(session_id=session_id))
    assert await session.AppendMessages(request) == first


async def test_a_request_id_serves_one_body(session: Stub) -> None:
    session_id, request_id = await open_session(session), new_id()
    await session.AppendMessages(append(session_id, "hello", request_id=request_id))
    for other in (
        append(session_id, "goodbye", request_id=request_id),
        append(await open_session(session), "hello", request_id=request_id),
        append(session_id, "hello", request_id=request_id, expected_sequence=1),
    ):
        async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
            await session.AppendMessages(other)
    assert words(await listed(session, session_id)) == ["hello"]


async def test_a_step_appends_once_for_ever(session: Stub) -> None:
    session_id, step = await open_session(session), source(step=3)
    first = await session.AppendMessages(append(session_id, call("c1"), result("c1"), source=step))
    await session.AppendMessages(append(session_id, "meanwhile"))
    # No request_id, and another text even: the step is what counts.
    assert await session.AppendMessages(append(session_id, "again", source=step)) == first
    stored = await listed(session, session_id)
    assert [message.run_id for message in stored] == [step.run_id, step.run_id, ""]
    other = append(session_id, "next step", source=source(step.run_id, 4))
    assert (await session.AppendMessages(other)).first_sequence == 4


async def test_a_step_appends_to_one_session(session: Stub) -> None:
    step = source()
    await session.AppendMessages(append(await open_session(session), "hello", source=step))
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED") as refusal:
        await session.AppendMessages(append(await open_session(session), "hello", source=step))
    assert refusal.metadata == {"run_id": step.run_id, "step_sequence": "1"}


async def test_only_services_append_for_a_run(
    session: Stub, client: tuple[Stub, grpc.aio.Metadata], tenant_id: object
) -> None:
    session_id = await open_session(session)
    stub, metadata = client
    assert (await stub.AppendMessages(append(session_id, "mine"), metadata=metadata)).last_sequence == 1
    async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"):
        await stub.AppendMessages(append(session_id, "forged", source=source()), metadata=metadata)
    assert words(await listed(session, session_id)) == ["mine"]


async def test_expected_sequence_guards_against_others(session: Stub) -> None:
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, "first", expected_sequence=0))
    async with refused(grpc.StatusCode.ABORTED, "SEQUENCE_MOVED") as refusal:
        await session.AppendMessages(append(session_id, "late", expected_sequence=0))
    assert refusal.metadata == {"last_sequence": "1"}
    appended = await session.AppendMessages(append(session_id, "second", expected_sequence=1))
    assert appended.last_sequence == 2
    assert words(await listed(session, session_id)) == ["first", "second"]


async def test_a_refused_append_uses_no_request_id(session: Stub) -> None:
    session_id, request_id = await open_session(session), new_id()
    async with refused(grpc.StatusCode.ABORTED, "SEQUENCE_MOVED"):
        await session.AppendMessages(append(session_id, "early", expected_sequence=1, request_id=request_id))
    await session.AppendMessages(append(session_id, "first"))
    request = append(session_id, "early", expected_sequence=1, request_id=request_id)
    assert (await session.AppendMessages(request)).last_sequence == 2


async def test_a_closed_or_expired_session_takes_no_messages(session: Stub, expire: Change) -> None:
    closed, expired = await open_session(session), await open_session(session, ttl=seconds(60))
    await session.CloseSession(pb.CloseSessionRequest(session_id=closed))
    await expire(expired)
    for session_id, status in ((closed, "CLOSED"), (expired, "EXPIRED")):
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_ACTIVE") as refusal:
            await session.AppendMessages(append(session_id, "late", source=source()))
        assert refusal.metadata == {"session_id": session_id, "status": status}
        assert await listed(session, session_id) == []


async def test_a_run_that_began_may_append_to_a_session_closed_meanwhile(session: Stub, lapse: Change) -> None:
    session_id, run_id = await open_session(session), new_id()
    await session.BeginTurn(turn(session_id, source=source(run_id, 1)))
    await session.CloseSession(pb.CloseSessionRequest(session_id=session_id))
    await session.AppendMessages(append(session_id, text("an answer", ASSISTANT), source=source(run_id, 2)))
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_ACTIVE"):
        await session.AppendMessages(append(session_id, "somebody else", source=source()))
    # A run that was paused past its hold still finishes what was acknowledged.
    await lapse(session_id)
    last = append(session_id, text("the end", ASSISTANT), source=source(run_id, 3), release_hold=True)
    await session.AppendMessages(last)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_ACTIVE"):
        await session.AppendMessages(append(session_id, "too late", source=source(run_id, 4)))
    assert words(await listed(session, session_id)) == ["hello", "an answer", "the end"]


async def test_the_last_append_releases_the_hold(session: Stub) -> None:
    session_id, run_id = await open_session(session), new_id()
    await session.BeginTurn(turn(session_id, source=source(run_id, 1)))
    # Another run's release is not ours.
    await session.AppendMessages(append(session_id, "aside", source=source(), release_hold=True))
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_HELD"):
        await session.BeginTurn(turn(session_id))
    await session.AppendMessages(append(session_id, "answer", source=source(run_id, 2), release_hold=True))
    await session.BeginTurn(turn(session_id))


@pytest.mark.parametrize("fields", [{}, {"request_id": new_id()}], ids=["alone", "with_request_id"])
async def test_a_run_does_not_end_in_a_session_that_it_never_began_in(session: Stub, fields: dict[str, str]) -> None:
    session_id, run_id = await open_session(session), new_id()
    await session.BeginTurn(turn(session_id, source=source(run_id, 1)))
    await session.DeleteSession(pb.DeleteSessionRequest(session_id=session_id))
    # Another one, whose client has given it the id.
    await open_session(session, session_id=session_id, user_id="bob")
    last = append(session_id, "for somebody else", source=source(run_id, 2), release_hold=True, **fields)
    async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        await session.AppendMessages(last)
    assert await listed(session, session_id) == []
    # One that began here may end, though its hold has been ended for it.
    await session.BeginTurn(turn(session_id, source=source(run_id, 1)))
    await session.EndTurn(pb.EndTurnRequest(session_id=session_id, run_id=run_id))
    await session.AppendMessages(last)
    assert words(await listed(session, session_id)) == ["hello", "for somebody else"]


async def test_an_absent_session_and_a_foreign_one_take_nothing(session: Stub, stranger: Stub) -> None:
    session_id = await open_session(session)
    for stub, wanted in ((session, new_id()), (stranger, session_id)):
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
            await stub.AppendMessages(append(wanted, "hello", request_id=new_id()))
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
            await listed(stub, wanted)
    assert await listed(session, session_id) == []


def _parts(*parts: messages.Part, role: messages.MessageRole.ValueType = USER) -> messages.Message:
    return messages.Message(role=role, parts=parts)


_BIG = "x" * (256 * 1024 - 4)


@pytest.mark.parametrize(
    ("batch", "faulty"),
    [
        ([], "messages"),
        ([text("x")] * 101, "messages"),
        ([text(_BIG)] * 5, "messages"),
        ([text("x", 0)], "messages[0].role"),  # type: ignore[arg-type]
        ([text("x", 17)], "messages[0].role"),  # type: ignore[arg-type]
        ([text("x", author="a" * 201)], "messages[0].author"),
        ([text("x", author="\0")], "messages[0].author"),
        ([text("fine"), _parts()], "messages[1].parts"),
        ([_parts(*[messages.Part(text="x")] * 65)], "messages[0].parts"),
        ([text(_BIG + "x")], "messages[0].parts"),
        ([_parts(messages.Part())], "messages[0].parts[0]"),
        ([text("a\0b")], "messages[0].parts[0].text"),
        ([text("x", token_count=-1)], "messages[0].token_count"),
        ([text("x", token_count=10_000_001)], "messages[0].token_count"),
        ([text("x", metadata=struct(big="x" * 16_384))], "messages[0].metadata"),
        ([call("")], "messages[0].parts[0].tool_call.tool_call_id"),
        ([call("c" * 129)], "messages[0].parts[0].tool_call.tool_call_id"),
        ([call("c", name="")], "messages[0].parts[0].tool_call.name"),
        ([call("c", name="n" * 65)], "messages[0].parts[0].tool_call.name"),
        ([call("c", "c")], "messages[0].parts"),
        ([result("")], "messages[0].parts[0].tool_result.tool_call_id"),
        ([result("c" * 129)], "messages[0].parts[0].tool_result.tool_call_id"),
        ([result("c", name="")], "messages[0].parts[0].tool_result.name"),
        ([result("c", name="n" * 65)], "messages[0].parts[0].tool_result.name"),
        ([result("c", {"text": "\0"})], "messages[0].parts[0].tool_result.output.text"),
        ([text("x", TOOL)], "messages[0].parts[0].text"),
        ([_parts(*call("c").parts)], "messages[0].parts[0].tool_call"),
        ([_parts(*result("c").parts, role=ASSISTANT)], "messages[0].parts[0].tool_result"),
        (
            [
                _parts(
                    messages.Part(
                        tool_call=messages.ToolCall(
                            tool_call_id="c",
                            name="n",
                            arguments=Struct(fields={"n": Value(number_value=float("inf"))}),
                        )
                    ),
                    role=ASSISTANT,
                )
            ],
            "messages[0].parts[0].tool_call.arguments.n",
        ),
    ],
)
async def test_append_refuses_what_breaks_a_limit(session: Stub, batch: list[messages.Message], faulty: str) -> None:
    session_id = await open_session(session)
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await session.AppendMessages(append(session_id, *batch))
    assert set(refusal.violations) == {faulty}
    assert await listed(session, session_id) == []


@pytest.mark.parametrize(
    ("fields", "faulty"),
    [
        ({"session_id": ""}, "session_id"),
        ({"source": messages.RunSource(run_id="x", step_sequence=1)}, "source.run_id"),
        ({"source": messages.RunSource(run_id=new_id(), step_sequence=0)}, "source.step_sequence"),
        ({"release_hold": True}, "release_hold"),
        ({"request_id": "x"}, "request_id"),
    ],
)
async def test_append_refuses_a_malformed_request(session: Stub, fields: dict[str, object], faulty: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await session.AppendMessages(_request(fields))
    assert set(refusal.violations) == {faulty}


def _request(fields: dict[str, object]) -> pb.AppendMessagesRequest:
    return pb.AppendMessagesRequest(**{"session_id": new_id(), "messages": [text("hello")], **fields})  # type: ignore[arg-type]


async def test_append_takes_what_meets_each_limit(session: Stub) -> None:
    session_id = await open_session(session)
    many = [text("x", author="a" * 200, token_count=10_000_000)] * 100
    assert (await session.AppendMessages(append(session_id, *many))).last_sequence == 100
    large = text(_BIG, metadata=struct(big="x" * (16_384 - len('{"big":""}'))))
    await session.AppendMessages(append(session_id, large, _parts(*[messages.Part(text="x")] * 64)))
    stored = await listed(session, session_id, after_sequence=100)
    assert stored[0].parts[0].text == _BIG
    assert len(stored[1].parts) == 64


async def test_an_oversized_request_is_refused_with_its_limit(session: Stub) -> None:
    async with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE") as refusal:
        await session.AppendMessages(append(await open_session(session), text("x" * (5 * 1024 * 1024))))
    assert refusal.metadata["limit_bytes"] == str(4 * 1024 * 1024)


async def _pages(session: Stub, **fields: object) -> list[list[int]]:
    pages, token = [], ""
    while True:
        request = pb.ListMessagesRequest(page_token=token, **fields)  # type: ignore[arg-type]
        page = await session.ListMessages(request)
        pages.append([message.sequence for message in page.messages])
        token = page.next_page_token
        if not token:
            return pages


async def test_messages_are_listed_page_by_page_in_both_directions(session: Stub) -> None:
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, *[str(number) for number in range(1, 8)]))
    ask = {"session_id": session_id, "page_size": 3}
    assert await _pages(session, **ask) == [[1, 2, 3], [4, 5, 6], [7]]
    assert await _pages(session, **ask, after_sequence=4) == [[5, 6, 7]]
    assert await _pages(session, **ask, after_sequence=7) == [[]]
    assert await _pages(session, **ask, after_sequence=2**63 - 1) == [[]]
    assert await _pages(session, **ask, descending=True) == [[7, 6, 5], [4, 3, 2], [1]]
    assert await _pages(session, **ask, descending=True, after_sequence=4) == [[3, 2, 1]]
    assert await _pages(session, **ask, descending=True, after_sequence=1) == [[]]
    assert await _pages(session, **ask, descending=True, after_sequence=2**63 - 1) == [[7, 6, 5], [4, 3, 2], [1]]
    assert await _pages(session, session_id=session_id, page_size=100_000) == [[1, 2, 3, 4, 5, 6, 7]]


async def test_an_empty_session_lists_nothing(session: Stub) -> None:
    session_id = await open_session(session)
    assert await _pages(session, session_id=session_id) == [[]]
    assert await _pages(session, session_id=session_id, descending=True) == [[]]


async def test_a_page_ends_before_it_is_too_large(session: Stub) -> None:
    session_id = await open_session(session)
    for _ in range(5):
        await session.AppendMessages(append(session_id, *[text("x" * 250_000)] * 4))
    ask = pb.ListMessagesRequest(session_id=session_id, page_size=1_000)
    page = await session.ListMessages(ask)
    assert 2 * 1024 * 1024 < page.ByteSize() < 3.1 * 1024 * 1024
    assert page.next_page_token
    everything = [sequence for one in await _pages(session, session_id=session_id) for sequence in one]
    assert everything == list(range(1, 21))
    backwards = await _pages(session, session_id=session_id, descending=True)
    assert [sequence for one in backwards for sequence in one] == everything[::-1]


async def test_a_page_token_belongs_to_its_list(session: Stub) -> None:
    session_id, other = await open_session(session), await open_session(session)
    await session.AppendMessages(append(session_id, "a", "b"))
    page = await session.ListMessages(pb.ListMessagesRequest(session_id=session_id, page_size=1))
    token = page.next_page_token
    for request in (
        pb.ListMessagesRequest(session_id=other, page_token=token),
        pb.ListMessagesRequest(session_id=session_id, page_token=token, descending=True),
        pb.ListMessagesRequest(session_id=session_id, page_token=token, after_sequence=1),
        pb.ListMessagesRequest(session_id=session_id, page_token=token[:-2]),
        pb.ListMessagesRequest(session_id=session_id, page_token="no token"),
    ):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
            await session.ListMessages(request)


async def test_list_refuses_what_breaks_a_limit(session: Stub) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await session.ListMessages(pb.ListMessagesRequest(session_id="x", after_sequence=-1, page_size=-1))
    assert set(refusal.violations) == {"session_id", "after_sequence", "page_size"}
