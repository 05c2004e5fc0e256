"""ListActivities: what is found, in which order, page by page."""

from datetime import timedelta
from uuid import uuid4

import grpc
import pytest
from minion.activity.v1 import activity_pb2, activity_service_pb2
from minion_postgres import pages as page_tokens
from minion_testing.errors import refused

from tests.minion_activity.stage import (
    FAILED,
    LLM_CALL,
    NOON,
    RUN,
    SUCCEEDED,
    TOOL_CALL,
    Stub,
    activity,
    id_at,
    listed,
    new_id,
    pages,
    recorded,
    timestamp,
    value,
)


def _at(minutes: float, **fields: object) -> activity_pb2.Activity:
    return activity(start_time=timestamp(NOON + timedelta(minutes=minutes)), **fields)


async def test_the_newest_start_comes_first_whatever_the_ids_say(activities: Stub) -> None:
    first, second, third = (_at(minute) for minute in (1, 2, 3))
    # Recorded out of order, and the ids' months differ from the order of the starts.
    oldest_id = _at(4, activity_id=id_at(NOON - timedelta(days=400)))
    await recorded(activities, second, oldest_id, third, first)
    assert await listed(activities) == [one.activity_id for one in (oldest_id, third, second, first)]


async def test_equal_starts_are_ordered_by_id(activities: Stub) -> None:
    made = [_at(0, activity_id=id_at(NOON, number)) for number in (3, 1, 2)]
    await recorded(activities, *made)
    assert await listed(activities) == sorted((one.activity_id for one in made), reverse=True)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_pages_hold_every_activity_once(activities: Stub, size: int) -> None:
    made = [_at(number // 3, activity_id=id_at(NOON, number)) for number in range(7)]
    await recorded(activities, *made)
    found = await pages(activities, page_size=size)
    assert [one.activity_id for page in found for one in page] == [one.activity_id for one in reversed(made)]
    assert [len(page) for page in found[:-1]] == [size] * (len(found) - 1)
    assert len(found) == -(-7 // size)


async def test_an_empty_list_has_no_next_page(activities: Stub) -> None:
    assert await pages(activities) == [[]]


async def test_what_is_recorded_between_pages_shifts_nothing(activities: Stub) -> None:
    made = [_at(number) for number in range(4)]
    await recorded(activities, *made)
    request = activity_service_pb2.ListActivitiesRequest(page_size=2)
    first = await activities.ListActivities(request)
    await recorded(activities, _at(9))
    request.page_token = first.next_page_token
    second = await activities.ListActivities(request)
    assert [one.activity_id for one in second.activities] == [made[1].activity_id, made[0].activity_id]


async def test_every_filter_given_must_match(activities: Stub) -> None:
    agent, session, run = new_id(), new_id(), new_id()
    everything = {"agent_id": agent, "session_id": session, "run_id": run, "kind": LLM_CALL, "status": FAILED}
    match = _at(0, **everything)
    others = [
        _at(1, **{**everything, "agent_id": new_id()}),
        _at(2, **{**everything, "session_id": new_id()}),
        _at(3, **{**everything, "run_id": new_id()}),
        _at(4, **{**everything, "kind": TOOL_CALL}),
        _at(5, **{**everything, "status": SUCCEEDED}),
        _at(6, kind=LLM_CALL, status=FAILED),
    ]
    await recorded(activities, match, *others)
    assert await listed(activities, **everything) == [match.activity_id]
    for name, wanted in everything.items():
        found = await listed(activities, **{name: wanted})
        # All but the one that differs in this, and (for the ids) the one that has none.
        assert match.activity_id in found
        assert len(found) == (5 if name.endswith("_id") else 6), name


async def test_a_time_span_holds_its_start_and_not_its_end(activities: Stub) -> None:
    made = [_at(minute) for minute in (0, 1, 2)]
    await recorded(activities, *made)
    span = {"start_time": made[0].start_time, "end_time": made[2].start_time}
    assert await listed(activities, **span) == [made[1].activity_id, made[0].activity_id]
    assert await listed(activities, start_time=made[1].start_time) == [made[2].activity_id, made[1].activity_id]
    assert await listed(activities, end_time=made[1].start_time) == [made[0].activity_id]
    assert await listed(activities, start_time=made[1].start_time, end_time=made[1].start_time) == []


async def test_pages_go_on_within_a_time_span(activities: Stub) -> None:
    made = [_at(minute) for minute in range(6)]
    await recorded(activities, *made)
    found = await pages(activities, start_time=made[1].start_time, end_time=made[5].start_time, page_size=3)
    assert [[one.activity_id for one in page] for page in found] == [
        [made[4].activity_id, made[3].activity_id, made[2].activity_id],
        [made[1].activity_id],
    ]


async def test_a_stranger_finds_nothing(activities: Stub, strangers: Stub) -> None:
    run = new_id()
    await recorded(activities, activity(kind=RUN, run_id=run))
    assert await listed(strangers, run_id=run) == []


async def test_fifty_is_the_page_when_none_is_named_and_five_hundred_the_largest(activities: Stub) -> None:
    for _ in range(2):
        await recorded(activities, *[activity() for _ in range(251)])
    assert len(await listed(activities)) == 50
    assert len(await listed(activities, page_size=500)) == 500
    assert len(await listed(activities, page_size=1_000_000)) == 500


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (["x" * 60_000], 30),
        ([1] * 30_000, 6),  # five times its JSON on the wire
        ([[]] * 10_000, 4),
        ([{"a": None}] * 4_000, 8),
        (["é,[{" * 100] * 120, 30),
    ],
    ids=["text", "numbers", "lists", "objects", "frames"],
)
async def test_a_page_of_large_rows_stays_below_what_clients_take(activities: Stub, content: object, rows: int) -> None:
    made = [_at(number, input=value(content), output=value(content)) for number in range(rows)]
    for start in range(0, rows, 3):
        await recorded(activities, *made[start : start + 3])
    found = await pages(activities, page_size=500)
    assert len(found) > 1
    assert [one.activity_id for page in found for one in page] == [one.activity_id for one in reversed(made)]
    for page in found:
        assert page
        assert activity_service_pb2.ListActivitiesResponse(activities=page).ByteSize() < 3 * 1024 * 1024


async def test_a_row_that_is_more_than_a_page_by_its_measure_ends_no_list(activities: Stub) -> None:
    # Each of its commas counts as a value: by what bounds a page it takes more than 3 MiB alone.
    commas = value("," * 65_000)
    largest = [_at(number, input=commas, output=commas) for number in (1, 2)]
    made = [_at(0), *largest, _at(3)]
    for one in made:
        await recorded(activities, one)
    found = await pages(activities, page_size=500)
    assert [one.activity_id for page in found for one in page] == [one.activity_id for one in reversed(made)]
    assert all(found)


@pytest.mark.parametrize(
    "filters",
    [
        {"agent_id": "x"},
        {"session_id": "x"},
        {"run_id": "x"},
        {"kind": 99},
        {"status": 99},
        {"page_size": -1},
        {"start_time": timestamp(NOON), "end_time": timestamp(NOON - timedelta(microseconds=1))},
    ],
    ids=lambda filters: next(reversed(filters)),
)
async def test_a_malformed_filter_is_refused(activities: Stub, filters: dict[str, object]) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await listed(activities, **filters)
    assert list(refusal.violations) == [next(reversed(filters))]


async def test_a_foreign_page_token_is_refused(activities: Stub) -> None:
    await recorded(activities, *[activity(kind=RUN) for _ in range(2)])
    page = await activities.ListActivities(activity_service_pb2.ListActivitiesRequest(kind=RUN, page_size=1))
    filters = dict.fromkeys(("agent_id", "session_id", "run_id", "kind", "status", "start_time", "end_time"))
    for token in ("x", page.next_page_token, page_tokens.encode((1, uuid4()), filters)):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
            await listed(activities, page_token=token)
