"""Histories that hypothesis makes: what anybody might append, broken exchanges and all."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import strategies as st
from minion_session.messages.domain import (
    MediaPart,
    Message,
    Part,
    Role,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
    content_bytes,
    estimate_tokens,
)
from minion_session.summaries.domain import Summary

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# As messages count it: in microseconds since the epoch.
SAID = 1_767_225_600_000_000
SESSION = UUID(int=1)

# Few ids, so that calls and results meet, miss and repeat each other; some that a provider doesn't take.
_IDS = st.sampled_from(["a", "b", "c", "functions.clock:0", "an-id-of-more-than-forty-characters-" + "x" * 20])
_NAMES = st.sampled_from(["clock", "search", "files.read", "2fast"])
_SIZES = st.sampled_from([0, 0, 0, 40, 400, 4_000, 40_000])
_TEXTS = st.builds(
    lambda word, size: TextPart(word + "ä" * size),
    st.sampled_from(["words", "words", "words", "", " ", "\n\t", "“quoted”\n"]),
    _SIZES,
)
_OUTPUTS = st.one_of(
    st.none(),
    st.just(""),
    st.booleans(),
    st.sampled_from(["noon", {"time": "noon"}, ["noon", 12], 12.5]),
    st.builds(lambda size: '"noon"\n' * (size // 7), _SIZES),
    st.builds(lambda size: {"rows": ["row"] * (size // 6)}, _SIZES),
)
_MEDIA = st.sampled_from(
    [
        MediaPart("image/png", "a picture", None, "https://pictures.example/1.png"),
        MediaPart("application/pdf", "", UUID(int=7)),
    ]
)
_THINKING = st.builds(ThinkingPart, st.sampled_from(["hm", "hm " * 1_000]), st.just("signed"))
_CALLS = st.builds(ToolCallPart, _IDS, _NAMES, st.builds(lambda size: {"zone": "UTC" * (1 + size // 3)}, _SIZES))
_RESULTS = st.builds(ToolResultPart, _IDS, _NAMES, _OUTPUTS, st.booleans(), st.sampled_from([None, None, UUID(int=8)]))


def _calls_once(parts: Sequence[Part]) -> bool:
    calls = [part.tool_call_id for part in parts if isinstance(part, ToolCallPart | ToolResultPart)]
    return len(set(calls)) == len(calls)


_SPOKEN = st.one_of(
    st.tuples(st.just(Role.USER), st.lists(st.one_of(_TEXTS, _TEXTS, _MEDIA), min_size=1, max_size=3)),
    st.tuples(st.just(Role.SYSTEM), st.lists(_TEXTS, min_size=1, max_size=2)),
    st.tuples(
        st.just(Role.ASSISTANT),
        st.lists(st.one_of(_TEXTS, _CALLS, _CALLS, _THINKING, _MEDIA), min_size=1, max_size=4).filter(_calls_once),
    ),
    st.tuples(st.just(Role.TOOL), st.lists(_RESULTS, min_size=1, max_size=3).filter(_calls_once)),
    st.tuples(st.just(Role.TOOL), st.lists(_RESULTS, min_size=1, max_size=1)),
)


def transcript(spoken: Sequence[tuple[Role, Sequence[Part], int | None]], first: int = 1) -> list[Message]:
    """Makes stored messages of what was said; None lets tokens be estimated, as the service does."""
    return [
        Message(
            sequence=sequence,
            role=role,
            author="",
            parts=tuple(parts),
            token_count=tokens or estimate_tokens(sum(content_bytes(part) for part in parts)),
            create_time=SAID,
        )
        for sequence, (role, parts, tokens) in enumerate(spoken, start=first)
    ]


@st.composite
def transcripts(draw: st.DrawFn, most: int = 16) -> list[Message]:
    """Any window of a session, which begins anywhere and ends with anything."""
    tokens = st.one_of(st.none(), st.none(), st.integers(1, 3_000))
    spoken = [(*one, draw(tokens)) for one in draw(st.lists(_SPOKEN, max_size=most))]
    return transcript(spoken, first=draw(st.integers(1, 5)))


@st.composite
def summaries(draw: st.DrawFn) -> Summary | None:
    """A summary of a stretch, or none."""
    if draw(st.booleans()):
        return None
    first = draw(st.integers(1, 6))
    return Summary(
        summary_id=UUID(int=2),
        session_id=SESSION,
        first_sequence=first,
        last_sequence=draw(st.integers(first, 12)),
        text="what was said",
        token_count=draw(st.sampled_from([8, 100, 5_000])),
        model="",
        run_id=None,
        create_time=NOW,
    )
