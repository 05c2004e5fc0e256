"""Which stretch of a session is summarized, and in what words."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minion_gateway.agents.domain import SummaryPolicy
from minion_gateway.summaries.domain import (
    LONGEST_ENTRY,
    NOTHING,
    Covered,
    Entry,
    Plan,
    Reading,
    Voice,
    ended_whole,
    shortened,
)

USER, ASSISTANT, TOOL = Voice.USER, Voice.ASSISTANT, Voice.TOOL


def session(*voices: Voice, tokens: int = 100, size: int = 400) -> list[Entry]:
    """Messages in order; an assistant's that a tool's follows has called it."""
    entries = []
    for place, voice in enumerate(voices):
        following = voices[place + 1] if place + 1 < len(voices) else None
        called = frozenset({f"c{place}"}) if voice is ASSISTANT and following is TOOL else frozenset()
        entries.append(Entry(place + 1, voice, f"{voice.value}: {'x' * size}", tokens, calls=called))
        if voice is TOOL:
            entries[-1] = replace(entries[-1], results=entries[-2].calls)
    return entries


def read(
    entries: Sequence[Entry],
    policy: SummaryPolicy,
    *,
    before: Covered = NOTHING,
    input_tokens: int = 100_000,
    page: int = 3,
) -> Plan | None:
    reading = Reading(before, len(entries), policy, input_tokens)
    while not reading.done:
        reading.take(entries[reading.place : reading.place + page])
    return reading.plan()


def policy(trigger: int = 256, target: int = 64, keep: int = 2) -> SummaryPolicy:
    return SummaryPolicy(trigger, target, keep)


def covered(plan: Plan | None) -> list[int]:
    return [] if plan is None else [entry.sequence for entry in plan.entries]


def test_what_is_below_the_trigger_is_left() -> None:
    assert read(session(USER, ASSISTANT, tokens=128), policy()) is None
    assert read([], policy()) is None


def test_all_but_the_newest_is_summarized() -> None:
    talk = session(USER, ASSISTANT, USER, ASSISTANT, USER, ASSISTANT)
    assert covered(read(talk, policy())) == [1, 2, 3, 4]
    assert covered(read(talk, policy(keep=0))) == [1, 2, 3, 4, 5, 6]
    assert covered(read(talk, policy(keep=6))) == []


def test_a_summary_goes_on_where_the_last_one_ended() -> None:
    talk = session(*[USER, ASSISTANT] * 6)
    plan = read(talk, policy(), before=Covered(1, 6, "So far."))
    assert covered(plan) == [7, 8, 9, 10]
    assert plan is not None
    assert plan.before.text == "So far."
    assert read(talk, policy(), before=Covered(1, 10, "So far.")) is None


def test_what_would_gain_nothing_is_not_asked_for() -> None:
    # The newest alone pass the trigger: each turn would ask for a summary of the little before them.
    talk = [*session(USER, ASSISTANT, tokens=10), *session(USER, ASSISTANT, tokens=500)]
    talk = [replace(entry, sequence=place + 1) for place, entry in enumerate(talk)]
    assert read(talk, policy()) is None


def test_an_end_of_a_turn_is_preferred_to_its_middle() -> None:
    talk = session(USER, ASSISTANT, TOOL, ASSISTANT, USER, ASSISTANT, TOOL, ASSISTANT)
    assert covered(read(talk, policy(keep=1))) == [1, 2, 3, 4]
    assert covered(read(talk, policy(keep=0))) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_turn_that_is_all_there_is_is_parted_between_exchanges() -> None:
    talk = session(USER, ASSISTANT, TOOL, ASSISTANT, TOOL, ASSISTANT)
    assert covered(read(talk, policy(keep=1))) == [1, 2, 3, 4, 5]
    assert covered(read(talk, policy(keep=2))) == [1, 2, 3]


def test_a_call_that_waits_for_its_result_is_left() -> None:
    talk = session(USER, ASSISTANT, USER, ASSISTANT, USER, ASSISTANT)
    talk[-1] = replace(talk[-1], calls=frozenset({"c"}))
    assert covered(read(talk, policy(keep=0))) == [1, 2, 3, 4]


def test_a_long_stretch_takes_several_questions() -> None:
    talk = session(*[USER, ASSISTANT] * 40)
    before, rounds = NOTHING, 0
    while plan := read(talk, policy(), before=before, input_tokens=1_000):
        assert sum(len(entry.text) for entry in plan.entries) <= 3_000
        assert plan.more == (plan.last_sequence < 78)
        before, rounds = Covered(1, plan.last_sequence, "…"), rounds + 1
    assert (before.last_sequence, rounds > 5) == (78, True)


def test_one_exchange_that_passes_the_bound_is_shortened_and_kept_whole() -> None:
    talk = session(USER, ASSISTANT, *[TOOL] * 30, USER, ASSISTANT, size=2_000)
    plan = read(talk, policy(), input_tokens=1_000)
    assert covered(plan) == [1]
    plan = read(talk, policy(), before=Covered(1, 1, "…"), input_tokens=1_000)
    assert covered(plan) == list(range(2, 33))
    assert plan is not None
    assert sum(len(entry.text) for entry in plan.entries) < 10_000


def test_reading_stops_as_soon_as_it_knows_enough() -> None:
    talk = session(*[USER, ASSISTANT] * 5_000)
    reading = Reading(NOTHING, len(talk), policy(), 1_000)
    while not reading.done:
        reading.take(talk[reading.place : reading.place + 10])
    assert reading.place < 100


VOICES = st.lists(st.sampled_from([USER, ASSISTANT, TOOL]), min_size=1, max_size=60)


@given(
    voices=VOICES,
    keep=st.integers(0, 20),
    tokens=st.integers(1, 400),
    size=st.integers(1, 3_000),
    input_tokens=st.integers(1_000, 4_000),
    start=st.integers(0, 30),
)
def test_no_call_is_parted_from_its_result(
    voices: list[Voice], keep: int, tokens: int, size: int, input_tokens: int, start: int
) -> None:
    talk = session(USER, *voices, tokens=tokens, size=size)
    before = Covered(1, min(start, len(talk)), "…") if start else NOTHING
    plan = read(talk, policy(keep=keep), before=before, input_tokens=input_tokens)
    if plan is None:
        return
    assert covered(plan) == list(range(before.last_sequence + 1, plan.last_sequence + 1))
    assert plan.last_sequence <= len(talk) - keep
    following = talk[plan.last_sequence] if plan.last_sequence < len(talk) else None
    assert following is None or following.voice is not TOOL


@pytest.mark.parametrize("length", [1, LONGEST_ENTRY, LONGEST_ENTRY + 1, 10_000_000])
def test_a_long_message_is_read_at_both_ends(length: int) -> None:
    text = shortened("a" * (length - 1) + "z", LONGEST_ENTRY)
    assert text.endswith("z")
    assert len(text) < LONGEST_ENTRY + 60
    assert ("left out" in text) == (length > LONGEST_ENTRY)


def test_a_summary_that_was_cut_ends_with_a_sentence() -> None:
    assert ended_whole(" One. Two thr", was_cut=False) == "One. Two thr"
    assert ended_whole("One two three. Fou", was_cut=True) == "One two three."
    assert ended_whole("no end in sight", was_cut=True) == "no end in sight"
