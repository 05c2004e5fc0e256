"""What a model is shown: properties of the cut over generated transcripts, and its borders by example."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from minion_session.messages.domain import (
    Message,
    Part,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    context,
    estimate_tokens,
)

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _calls_once(parts: Sequence[Part]) -> bool:
    calls = [part.tool_call_id for part in parts if isinstance(part, ToolCallPart)]
    return len(set(calls)) == len(calls)


# Few ids, so that calls and results meet, miss and repeat each other.
_IDS = st.sampled_from(["a", "b", "c"])
_TEXTS = st.just(TextPart("words"))
_CALLS = _IDS.map(lambda call_id: ToolCallPart(call_id, "clock", {}))
_RESULTS = _IDS.map(lambda call_id: ToolResultPart(call_id, "clock", None, is_error=False))

_SPOKEN = st.one_of(
    st.tuples(st.sampled_from([Role.USER, Role.SYSTEM]), st.lists(_TEXTS, min_size=1, max_size=2)),
    st.tuples(
        st.just(Role.ASSISTANT),
        st.lists(st.one_of(_TEXTS, _CALLS), min_size=1, max_size=3).filter(_calls_once),
    ),
    st.tuples(st.just(Role.TOOL), st.lists(_RESULTS, min_size=1, max_size=2)),
)


def _transcript(spoken: Sequence[tuple[Role, Sequence[Part], int]], first: int = 1) -> list[Message]:
    return [
        Message(sequence, role, "", tuple(parts), tokens, _NOW)
        for sequence, (role, parts, tokens) in enumerate(spoken, start=first)
    ]


@st.composite
def _transcripts(draw: st.DrawFn) -> list[Message]:
    """Any transcript, broken ones too, that begins anywhere and ends with the user's message."""
    spoken = [(*one, draw(st.integers(1, 30))) for one in draw(st.lists(_SPOKEN, max_size=14))]
    last = (Role.USER, [TextPart("now")], draw(st.integers(1, 30)))
    return _transcript([*spoken, last], first=draw(st.integers(1, 5)))


_LIMITS = st.tuples(st.integers(30, 400), st.integers(1, 16))


def _calls(message: Message) -> list[str]:
    return [part.tool_call_id for part in message.parts if isinstance(part, ToolCallPart)]


def _results(message: Message) -> list[str]:
    return [part.tool_call_id for part in message.parts if isinstance(part, ToolResultPart)]


def _exchanges(shown: Sequence[Message]) -> Iterator[tuple[list[str], list[str]]]:
    """Yields the calls of each message with the results right after it; leading results come with no calls."""
    calls: list[str] = []
    results: list[str] = []
    for message in shown:
        if message.role is Role.TOOL:
            results += _results(message)
            continue
        yield calls, results
        calls, results = _calls(message), []
    yield calls, results


@given(_transcripts(), _LIMITS)
def test_calls_and_results_are_never_parted(transcript: list[Message], limits: tuple[int, int]) -> None:
    shown = context(transcript, token_budget=limits[0], max_messages=limits[1])
    for calls, results in _exchanges(shown):
        assert sorted(calls) == sorted(results)


@given(_transcripts(), _LIMITS)
def test_a_context_keeps_to_its_limits_and_ends_with_the_users_message(
    transcript: list[Message], limits: tuple[int, int]
) -> None:
    shown = context(transcript, token_budget=limits[0], max_messages=limits[1])
    assert shown[-1] == transcript[-1]
    assert len(shown) <= limits[1]
    assert sum(message.token_count for message in shown) <= limits[0]
    assert shown[0].role is not Role.TOOL


@given(_transcripts(), _LIMITS)
def test_a_context_is_the_end_of_the_transcript_in_its_order(
    transcript: list[Message], limits: tuple[int, int]
) -> None:
    shown = context(transcript, token_budget=limits[0], max_messages=limits[1])
    assert all(before.sequence < after.sequence for before, after in pairwise(shown))
    by_sequence = {message.sequence: message for message in transcript}
    everything = context(transcript, token_budget=10**9, max_messages=10**9)
    assert shown == everything[len(everything) - len(shown) :]
    for message in shown:
        stored = by_sequence[message.sequence]
        assert (message.role, message.token_count) == (stored.role, stored.token_count)
        parts = iter(stored.parts)
        assert all(part in parts for part in message.parts)


@given(_transcripts(), _LIMITS)
def test_nothing_whole_is_left_out_while_it_fits(transcript: list[Message], limits: tuple[int, int]) -> None:
    budget, most = limits
    shown = context(transcript, token_budget=budget, max_messages=most)
    everything = context(transcript, token_budget=10**9, max_messages=10**9)
    left_out = everything[: len(everything) - len(shown)]
    if left_out:
        start = max(index for index, message in enumerate(left_out) if message.role is not Role.TOOL)
        unit = left_out[start:]
        tokens = sum(message.token_count for message in (*unit, *shown))
        assert tokens > budget or len(unit) + len(shown) > most


@given(_transcripts(), _LIMITS)
def test_the_window_that_the_database_reads_is_enough(transcript: list[Message], limits: tuple[int, int]) -> None:
    budget, most = limits
    window: list[Message] = []
    for message in reversed(transcript):
        if len(window) == most or sum(one.token_count for one in (*window, message)) > budget:
            break
        window.insert(0, message)
    shown = context(window, token_budget=budget, max_messages=most)
    best = context(transcript, token_budget=budget, max_messages=most)
    assert shown == best[len(best) - len(shown) :]
    if list(context(transcript, token_budget=10**9, max_messages=10**9)) == transcript:
        # Only what is not shown takes room in the window from what could be.
        assert shown == best


@given(_transcripts())
def test_texts_are_all_shown(transcript: list[Message]) -> None:
    shown = context(transcript, token_budget=10**9, max_messages=10**9)
    texts = [message.sequence for message in transcript if any(isinstance(part, TextPart) for part in message.parts)]
    assert set(texts) <= {message.sequence for message in shown}


def _shown(*spoken: tuple[Role, Sequence[Part]]) -> list[tuple[int, tuple[Part, ...]]]:
    transcript = _transcript([(role, parts, 1) for role, parts in spoken])
    return [(message.sequence, message.parts) for message in context(transcript, token_budget=100, max_messages=100)]


_A, _B = ToolCallPart("a", "clock", {}), ToolCallPart("b", "clock", {})
_TO_A = ToolResultPart("a", "clock", "noon", is_error=False)
_TO_B = ToolResultPart("b", "clock", "noon", is_error=True)
_WORDS = TextPart("words")


def test_a_call_that_was_never_answered_is_not_shown_but_what_was_said_with_it() -> None:
    assert _shown((Role.ASSISTANT, [_A]), (Role.USER, [_WORDS])) == [(2, (_WORDS,))]
    assert _shown((Role.ASSISTANT, [_WORDS, _A]), (Role.USER, [_WORDS])) == [(1, (_WORDS,)), (2, (_WORDS,))]


def test_of_two_calls_the_answered_one_is_shown() -> None:
    assert _shown((Role.ASSISTANT, [_A, _B]), (Role.TOOL, [_TO_B])) == [(1, (_B,)), (2, (_TO_B,))]


def test_a_result_far_from_its_call_answers_nothing() -> None:
    assert _shown((Role.ASSISTANT, [_A]), (Role.USER, [_WORDS]), (Role.TOOL, [_TO_A])) == [(2, (_WORDS,))]


def test_a_second_result_is_not_shown() -> None:
    assert _shown((Role.ASSISTANT, [_A]), (Role.TOOL, [_TO_A]), (Role.TOOL, [_TO_A, _TO_B])) == [
        (1, (_A,)),
        (2, (_TO_A,)),
    ]


def test_results_may_come_in_any_order_and_in_one_message() -> None:
    parts = (_A, _B)
    assert _shown((Role.ASSISTANT, parts), (Role.TOOL, [_TO_B, _TO_A])) == [(1, parts), (2, (_TO_B, _TO_A))]
    assert _shown((Role.ASSISTANT, parts), (Role.TOOL, [_TO_B]), (Role.TOOL, [_TO_A])) == [
        (1, parts),
        (2, (_TO_B,)),
        (3, (_TO_A,)),
    ]


@given(st.integers(0, 10**9))
def test_tokens_are_a_quarter_of_the_bytes_rounded_up_and_four(content_bytes: int) -> None:
    tokens = estimate_tokens(content_bytes) - 4
    assert 4 * (tokens - 1) < content_bytes <= 4 * tokens
