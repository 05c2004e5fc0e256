"""The rules of consolidation: what is one, what is no longer so, what may go, and what stays two."""

from datetime import timedelta
from typing import Any

import pytest
from minion_memory.consolidation.domain import (
    PRUNED_AGE,
    Action,
    Kind,
    Readings,
    actions,
    attribute_of,
    sources_of,
    telling,
)
from minion_memory.memories.domain import Memory, MemoryType, Source, Trust

from tests.minion_memory.test_planning import NOON, known

LATER = NOON + timedelta(days=1)


def planned(*memories: Memory, prune: bool = False) -> tuple[Action, ...]:
    return actions(memories, [], NOON, Readings(), prune=prune)


def test_what_says_the_same_of_one_subject_becomes_one() -> None:
    one = known("The user likes green tea.", key="user/likes/green-tea", trust=Trust.TOOL)
    other = known("User really likes  GREEN tea!", key="user/prefers/green-tea")
    [action] = planned(one, other)
    assert (action.kind, action.memory_ids, action.kept) == (Kind.MERGE, (one.memory_id,), other.memory_id)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The user likes green tea.", "The user likes black tea."),
        ("The user likes tea.", "The user does not like tea."),
        ("The locker code is 1234.", "The locker code is 1235."),
        ("The user prefers tea over coffee.", "The user prefers coffee over tea."),
        ("Ann lives with Bob.", "Bob lives with Ann."),
        ("Ann lives in Paris.", "Ann works in Paris."),
        ("The fridge is set to -5 degrees.", "The fridge is set to 5 degrees."),
        ("The user rates the film +1.", "The user rates the film -1."),
        ("It needs version 1.2.", "It needs version 1-2."),
        ("It costs $500.", "It costs €500."),
        ("It costs 50 %.", "It costs 50."),
        ("The user writes C++.", "The user writes C#."),
        ("Bob is the boss of the user.", "Is Bob the boss of the user?"),
        ("The user likes Ann.", "The user likes Ann?"),
        ("The user feels 😀.", "The user feels 😡."),
    ],
)
def test_what_is_only_alike_stays_two(one: str, other: str) -> None:
    assert planned(known(one, key="user/a"), known(other, key="user/b")) == ()


def test_another_type_or_subject_is_another_memory() -> None:
    same = "Likes green tea."
    assert planned(known(same, key="user/tea"), known(same, key="wife/tea")) == ()
    assert planned(known(same, key="user/a"), known(same, key="user/b", type=MemoryType.PREFERENCE)) == ()


def test_vectors_that_are_far_apart_forbid_a_merge() -> None:
    one, other = known("Likes tea.", key="user/a"), known("Likes tea!", key="user/b")
    assert actions([one, other], [frozenset((one.memory_id, other.memory_id))], NOON, Readings(), prune=False) == ()


def test_the_same_attribute_said_otherwise_is_superseded_by_the_later() -> None:
    older = known("Lives in Rome.", key="User/Home")
    newer = known("Lives in Paris.", key="user/home", occur_time=LATER)
    [action] = planned(older, newer)
    assert (action.kind, action.memory_ids, action.kept) == (Kind.SUPERSEDE, (older.memory_id,), newer.memory_id)
    assert planned(older, known("Lives in Oslo.", key="user/home", occur_time=LATER, trust=Trust.TOOL)) == ()
    assert planned(older, known("Lives in Paris.", key="user/work", occur_time=LATER)) == ()


@pytest.mark.parametrize(
    ("fields", "goes"),
    [
        ({}, True),
        ({"importance": 0.31}, False),
        ({"update_time": NOON - PRUNED_AGE + timedelta(days=1)}, False),
        ({"access_time": NOON - timedelta(days=1)}, False),
        ({"access_time": NOON - PRUNED_AGE - timedelta(days=1)}, True),
    ],
)
def test_only_what_is_old_unused_and_of_little_worth_goes(fields: dict[str, Any], goes: bool) -> None:
    memory = known("Chatted.", **{"importance": 0.3, "update_time": NOON - PRUNED_AGE - timedelta(days=1), **fields})
    assert planned(memory) == ()
    found = planned(memory, prune=True)
    assert [action.kind for action in found] == ([Kind.PRUNE] if goes else [])


def test_keys_that_name_an_attribute() -> None:
    assert attribute_of("User/Favorite Color") == attribute_of("user/favorite_color") == "user/favorite-color"
    assert attribute_of("user/c++") != attribute_of("user/c#")
    assert attribute_of("user/home~01890a5d-ac96-774b-bcce-b302099a8057") == "user/home"
    assert attribute_of("4f1d6c0a9b") == ""


def test_negations_tell() -> None:
    assert "not" in telling("The user does not like tea")
    assert telling("") == ()


def test_the_sources_of_what_was_merged_are_kept() -> None:
    from uuid import UUID

    session = UUID(int=5)
    kept = known("Tea.", metadata={"minion_sources": [{"session_id": "", "message_sequences": [9], "quote": "x"}]})
    merged = [known("Tea.", source=Source(session, (number,), "I like tea")) for number in range(60)]
    found = sources_of(kept, [*merged, merged[0]])
    assert len(found) == 31
    assert found[0]["quote"] == "x"
    assert found[1] == {"session_id": str(session), "message_sequences": [0], "quote": "I like tea"}
