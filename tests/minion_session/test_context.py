"""What a model is shown: properties of the cut over generated histories, and its borders by example."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minion_errors import InvalidArgument
from minion_session.contexts.domain import Context, Limits, build
from minion_session.contexts.exchanges import NO_RESULT, SYNTHETIC
from minion_session.messages.domain import (
    Message,
    Part,
    Role,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
    estimate_tokens,
)
from minion_session.summaries.domain import Summary

from tests.minion_session.histories import NOW, SAID, SESSION, summaries, transcript, transcripts
from tests.minion_session.providers import faults

_LIMITS = st.builds(Limits, st.sampled_from([256, 300, 1_000, 8_000, 1_000_000]), st.integers(1, 20))
_EVERYTHING = Limits(10**9, 10**9)


def _built(history: Sequence[Message], limits: Limits, summary: Summary | None = None) -> Context | None:
    try:
        return build(history, limits, summary)
    except InvalidArgument as error:
        assert error.reason == "CONTEXT_BUDGET_TOO_SMALL"  # noqa: PT017 - it may be refused, and for this alone
        return None


def _exchanges(shown: Sequence[Message]) -> Iterator[tuple[list[ToolCallPart], list[ToolResultPart]]]:
    """Yields the calls of each message with the results right after it; leading results come with no calls."""
    calls: list[ToolCallPart] = []
    results: list[ToolResultPart] = []
    for message in shown:
        if message.role is Role.TOOL:
            results += [part for part in message.parts if isinstance(part, ToolResultPart)]
            continue
        yield calls, results
        calls, results = [part for part in message.parts if isinstance(part, ToolCallPart)], []
    yield calls, results


def _check(history: Sequence[Message], limits: Limits, summary: Summary | None) -> None:
    context = _built(history, limits, summary)
    if context is None:
        # For the last message's sake alone, with its calls or its call: never for what came before.
        assert history[-1].token_count > limits.token_budget or history[-1].role in (Role.ASSISTANT, Role.TOOL)
        return
    shown = context.messages
    assert faults(shown) == []
    assert not shown or shown[0].role is Role.USER
    for calls, results in _exchanges(shown):
        # Each call has its one result right after it, under its own name.
        assert sorted((part.tool_call_id, part.name) for part in calls) == sorted(
            (part.tool_call_id, part.name) for part in results
        )
    # What a context takes, it says, and keeps to.
    assert len(shown) <= limits.max_messages
    told = context.summary.token_count if context.summary else 0
    assert context.token_count == sum(message.token_count for message in shown) + told <= limits.token_budget
    assert all(message.token_count > 0 and message.parts for message in shown)
    # Stored messages come in their order, but for results that came late; the last is shown whole.
    spoken = [message.sequence for message in shown if message.role is not Role.TOOL]
    assert all(before < after for before, after in pairwise(spoken))
    by_sequence = {message.sequence: message for message in history}
    for message in shown:
        if message.sequence == 0:
            assert message.metadata == {SYNTHETIC: True}
            assert {type(part) for part in message.parts} == {ToolResultPart}
        else:
            assert (message.role, message.create_time) == (by_sequence[message.sequence].role, SAID)
    if history and history[-1].role is Role.USER and history[-1] in build(history[-1:], _EVERYTHING).messages:
        assert shown[-1] == history[-1]
    if summary is not None and context.summary is None and history:
        # It covers nothing that is left out, or doesn't fit.
        begin = shown[0].sequence if shown else history[-1].sequence + 1
        assert summary.first_sequence >= begin or _too_small_without(history, limits, summary)


def _too_small_without(history: Sequence[Message], limits: Limits, summary: Summary) -> bool:
    return _built(history, Limits(limits.token_budget - summary.token_count, limits.max_messages)) is None


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(transcripts(), _LIMITS, summaries())
def test_every_context_is_accepted(history: list[Message], limits: Limits, summary: Summary | None) -> None:
    _check(history, limits, summary)


@pytest.mark.faults
@pytest.mark.timeout(1_200)
@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(transcripts(most=40), _LIMITS, summaries())
def test_every_context_of_ten_thousand_is_accepted(
    history: list[Message], limits: Limits, summary: Summary | None
) -> None:
    _check(history, limits, summary)


def test_a_result_that_came_late_takes_no_more_than_there_is() -> None:
    def said(sequence: int, role: Role, tokens: int, *parts: Part) -> Message:
        return Message(sequence, role, "", parts or (TextPart("words"),), tokens, SAID)

    for since in range(190, 256):
        history = [
            said(1, Role.USER, 6),
            said(2, Role.ASSISTANT, 10, ToolCallPart("a", "clock", {"zone": "UTC"})),
            said(3, Role.USER, since),
            # Of its two results the second answers nothing.
            said(4, Role.TOOL, 40, *[ToolResultPart(name, "clock", None, is_error=False) for name in ("a", "b")]),
        ]
        _check(history, Limits(256, 7), None)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(transcripts())
def test_where_all_fits_nothing_said_is_lost(history: list[Message]) -> None:
    context = build(history, _EVERYTHING)
    opening = next((message.sequence for message in history if _opens(message)), None)
    expected = [
        message.sequence
        for message in history
        if opening is not None and message.sequence >= opening and message.role is not Role.TOOL and _says(message)
    ]
    assert [message.sequence for message in context.messages if message.role is not Role.TOOL] == expected
    assert context.truncated == (bool(history) and expected[:1] != [1])
    # Every call that was answered shows what the tool said, wherever the result stands.
    answers = {part.tool_call_id for message in history if message.role is Role.TOOL for part in _results(message)}
    for message in context.messages:
        for result in _results(message):
            if message.sequence == 0:
                assert result.is_error
            else:
                assert any(stored.is_error == result.is_error for stored in _results(_at(history, message.sequence)))
    assert answers or all(message.role is not Role.TOOL or message.sequence == 0 for message in context.messages)


def _at(history: Sequence[Message], sequence: int) -> Message:
    return next(message for message in history if message.sequence == sequence)


def _results(message: Message) -> list[ToolResultPart]:
    return [part for part in message.parts if isinstance(part, ToolResultPart)]


def _says(message: Message) -> bool:
    return any(
        not isinstance(part, ThinkingPart) and not (isinstance(part, TextPart) and not part.text.strip())
        for part in message.parts
    )


def _opens(message: Message) -> bool:
    return message.role is Role.USER and _says(message)


def _shown(*spoken: tuple[Role, Sequence[Part]]) -> list[tuple[int, tuple[Part, ...]]]:
    history = transcript([(role, parts, 1) for role, parts in spoken])
    return [(message.sequence, message.parts) for message in build(history, Limits(1_000, 100)).messages]


_A, _B = ToolCallPart("a", "clock", {}), ToolCallPart("b", "clock", {})
_TO_A = ToolResultPart("a", "clock", "noon", is_error=False)
_TO_B = ToolResultPart("b", "clock", "noon", is_error=True)
_NOTHING_TO_A = ToolResultPart("a", "clock", NO_RESULT, is_error=True)
_WORDS = TextPart("words")
_HELLO = (Role.USER, [_WORDS])


def test_a_call_that_was_never_answered_is_given_a_result_that_says_so() -> None:
    assert _shown(_HELLO, (Role.ASSISTANT, [_WORDS, _A]), _HELLO) == [
        (1, (_WORDS,)),
        (2, (_WORDS, _A)),
        (0, (_NOTHING_TO_A,)),
        (3, (_WORDS,)),
    ]


def test_so_is_one_that_is_still_going_on() -> None:
    context = build(transcript([(*_HELLO, None), (Role.ASSISTANT, [_A], None)]), _EVERYTHING)
    assert context.messages[-1].metadata == {SYNTHETIC: True}
    assert context.messages[-1].parts == (_NOTHING_TO_A,)
    assert context.messages[-1].run_id is None


def test_of_two_calls_the_unanswered_one_is_given_a_result() -> None:
    assert _shown(_HELLO, (Role.ASSISTANT, [_A, _B]), (Role.TOOL, [_TO_B])) == [
        (1, (_WORDS,)),
        (2, (_A, _B)),
        (3, (_TO_B,)),
        (0, (_NOTHING_TO_A,)),
    ]


def test_a_result_that_came_late_is_shown_where_it_belongs() -> None:
    assert _shown(_HELLO, (Role.ASSISTANT, [_A]), _HELLO, (Role.TOOL, [_TO_A])) == [
        (1, (_WORDS,)),
        (2, (_A,)),
        (4, (_TO_A,)),
        (3, (_WORDS,)),
    ]


def test_a_result_without_its_call_is_not_shown() -> None:
    assert _shown((Role.TOOL, [_TO_A]), _HELLO, (Role.TOOL, [_TO_B])) == [(2, (_WORDS,))]


def test_a_second_result_is_not_shown() -> None:
    assert _shown(_HELLO, (Role.ASSISTANT, [_A]), (Role.TOOL, [_TO_A]), (Role.TOOL, [_TO_A, _TO_B])) == [
        (1, (_WORDS,)),
        (2, (_A,)),
        (3, (_TO_A,)),
    ]


def test_results_may_come_in_any_order_and_in_one_message() -> None:
    calls = (_A, _B)
    assert _shown(_HELLO, (Role.ASSISTANT, calls), (Role.TOOL, [_TO_A, _TO_B]))[1:] == [(2, calls), (3, (_TO_A, _TO_B))]
    assert _shown(_HELLO, (Role.ASSISTANT, calls), (Role.TOOL, [_TO_B]), (Role.TOOL, [_TO_A]))[1:] == [
        (2, calls),
        (3, (_TO_B,)),
        (4, (_TO_A,)),
    ]


def test_of_two_calls_with_one_id_the_newer_keeps_it() -> None:
    twice = ((Role.ASSISTANT, [_A]), (Role.TOOL, [_TO_A]))
    shown = _shown(_HELLO, *twice, *twice)
    older, newer = shown[1][1][0], shown[3][1][0]
    assert isinstance(older, ToolCallPart)
    assert older.tool_call_id != "a"
    assert newer == _A
    assert [_results_of(parts) for _, parts in (shown[2], shown[4])] == [[older.tool_call_id], ["a"]]


def _results_of(parts: Sequence[Part]) -> list[str]:
    return [part.tool_call_id for part in parts if isinstance(part, ToolResultPart)]


def test_ids_and_names_that_a_provider_refuses_are_mended_alike() -> None:
    call = ToolCallPart("functions.clock:0", "my.clock", {})
    result = ToolResultPart("functions.clock:0", "clock", "noon", is_error=False)
    (_, _), (_, calls), (_, results) = _shown(_HELLO, (Role.ASSISTANT, [call]), (Role.TOOL, [result]))
    (shown_call,), (shown_result,) = calls, results
    assert isinstance(shown_call, ToolCallPart)
    assert isinstance(shown_result, ToolResultPart)
    assert shown_call.name == shown_result.name == "my_clock"
    assert shown_call.tool_call_id == shown_result.tool_call_id
    assert shown_call.tool_call_id.startswith("call_")


def test_thinking_blank_texts_and_what_comes_before_the_user_are_not_shown() -> None:
    said: tuple[Role, Sequence[Part]] = (Role.ASSISTANT, [ThinkingPart("hm", ""), TextPart(" \n"), _WORDS])
    silent: tuple[Role, Sequence[Part]] = (Role.ASSISTANT, [ThinkingPart("hm", "")])
    assert _shown((Role.ASSISTANT, [_WORDS]), (Role.SYSTEM, [_WORDS]), _HELLO, said, silent) == [
        (3, (_WORDS,)),
        (4, (_WORDS,)),
    ]
    assert _shown((Role.ASSISTANT, [_WORDS])) == []


def _sizes(*sizes: tuple[Role, Sequence[Part], int], budget: int, most: int = 100) -> Context:
    return build(transcript(list(sizes)), Limits(budget, most))


def test_a_result_too_large_is_cut_and_what_came_before_it_is_shown() -> None:
    huge = ToolResultPart("a", "search", "line\n" * 100_000, is_error=False)
    history = transcript([(*_HELLO, None), (Role.ASSISTANT, [_A], None), (Role.TOOL, [huge], None), (*_HELLO, None)])
    context = build(history, Limits(1_000, 50))
    assert [message.sequence for message in context.messages] == [1, 2, 3, 4]
    assert not context.truncated
    (cut,) = context.messages[2].parts
    assert isinstance(cut, ToolResultPart)
    assert cut.output.startswith("line\nline\n")
    assert cut.output.endswith(" of 500000 bytes of the result of clock in message 3 are not shown.]")
    assert 400 < context.token_count <= 1_000


def test_the_mark_of_a_result_names_the_blob_where_the_whole_is() -> None:
    blob_id = SESSION
    result = ToolResultPart("a", "clock", "the beginning", is_error=False, blob_id=blob_id)
    shown = _shown(_HELLO, (Role.ASSISTANT, [_A]), (Role.TOOL, [result]))
    (marked,) = shown[2][1]
    assert isinstance(marked, ToolResultPart)
    assert marked.output == f"the beginning\n[The whole result is the blob {blob_id}.]"
    assert marked.blob_id == blob_id


def test_texts_and_arguments_too_large_are_cut_too() -> None:
    call = ToolCallPart("a", "write", {"text": 'quotes " and\nlines' * 10_000})
    context = build(
        transcript(
            [
                (Role.USER, [TextPart("ä" * 100_000)], None),
                (Role.ASSISTANT, [call], None),
                (Role.TOOL, [_TO_A], None),
                (*_HELLO, None),
            ]
        ),
        Limits(2_000, 50),
    )
    assert [message.sequence for message in context.messages] == [1, 2, 3, 4]
    (words,), (shown_call,) = context.messages[0].parts, context.messages[1].parts
    assert isinstance(words, TextPart)
    assert "bytes of message 1 are not shown" in words.text
    assert isinstance(shown_call, ToolCallPart)
    assert "bytes of the arguments of write in message 2 are not shown" in shown_call.arguments["cut"]
    assert context.token_count <= 2_000


def test_the_last_message_is_never_cut() -> None:
    with pytest.raises(InvalidArgument) as refusal:
        _sizes((*_HELLO, 1_001), budget=1_000)
    assert refusal.value.metadata == {"token_count": "1001", "token_budget": "1000"}
    assert _sizes((*_HELLO, 1_000), budget=1_000).token_count == 1_000
    # Nor is the last result, though its call has to stand before it.
    context = _sizes((*_HELLO, 5), (Role.ASSISTANT, [_A], 5), (Role.TOOL, [_TO_A], 900), budget=1_000)
    assert [message.token_count for message in context.messages] == [5, 5, 900]
    with pytest.raises(InvalidArgument):
        _sizes((*_HELLO, 5), (Role.ASSISTANT, [_A], 5), (Role.TOOL, [_TO_A], 1_000), budget=1_000)


def test_what_is_not_large_is_left_out_whole() -> None:
    context = _sizes((*_HELLO, 400), (*_HELLO, 400), (*_HELLO, 400), budget=1_000)
    assert [message.sequence for message in context.messages] == [2, 3]
    assert context.truncated


def test_a_turn_of_many_steps_keeps_its_question_and_its_newest_steps() -> None:
    steps = [
        said
        for number in range(30)
        for said in (
            (Role.ASSISTANT, [ToolCallPart(f"c{number}", "clock", {})], 10),
            (Role.TOOL, [ToolResultPart(f"c{number}", "clock", "noon", is_error=False)], 10),
        )
    ]
    context = _sizes((*_HELLO, 10), *steps, budget=1_000, most=9)
    assert [message.sequence for message in context.messages] == [1, *range(54, 62)]
    assert context.truncated
    # The database gives the question and the newest alone.
    history = transcript([(*_HELLO, 10), *steps])
    assert build([history[0], *history[-9:]], Limits(1_000, 9)).messages == context.messages


def _summary(first: int, last: int, tokens: int = 10) -> Summary:
    return Summary(SESSION, SESSION, first, last, "so far", tokens, "", None, NOW)


def test_the_summary_is_shown_when_what_it_covers_is_not() -> None:
    history = transcript([(*_HELLO, 100)] * 10)
    all_shown = build(history, Limits(1_000, 50), _summary(1, 5))
    assert (all_shown.summary, all_shown.truncated, all_shown.token_count) == (None, False, 1_000)
    short = build(history, Limits(500, 50), _summary(1, 5))
    assert short.summary is not None
    assert [message.sequence for message in short.messages] == [7, 8, 9, 10]
    assert short.token_count == 410
    # It covers what is shown alone.
    assert build(history, Limits(500, 50), _summary(8, 9)).summary is None
    # The last message goes before it.
    large = build(history, Limits(500, 50), _summary(1, 5, tokens=401))
    assert large.summary is None
    assert len(large.messages) == 5
    assert build(history, Limits(500, 50), _summary(1, 5, tokens=400)).token_count == 500


@given(st.integers(0, 10**9))
def test_tokens_are_a_quarter_of_the_bytes_rounded_up_and_four(content_bytes: int) -> None:
    tokens = estimate_tokens(content_bytes) - 4
    assert 4 * (tokens - 1) < content_bytes <= 4 * tokens
