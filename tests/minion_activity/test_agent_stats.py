"""GetAgentStats: sums that come of the activities themselves."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest
from minion.activity.v1 import activity_pb2, activity_service_pb2
from minion_postgres import Database
from minion_testing.errors import refused

from tests.minion_activity.stage import (
    CANCELED,
    FAILED,
    LLM_CALL,
    NOON,
    RUN,
    TOOL_CALL,
    UNKNOWN,
    Stub,
    activity,
    new_id,
    recorded,
    seconds,
    timestamp,
)


async def _stats(stub: Stub, agent_id: str, **fields: Any) -> activity_service_pb2.GetAgentStatsResponse:
    return await stub.GetAgentStats(activity_service_pb2.GetAgentStatsRequest(agent_id=agent_id, **fields))


def _run(agent_id: str, minute: float = 0, **fields: Any) -> activity_pb2.Activity:
    start_time = timestamp(NOON + timedelta(minutes=minute))
    return activity(**{"kind": RUN, "agent_id": agent_id, "agent_revision": 1, "start_time": start_time, **fields})


def _tokens(count: int) -> activity_pb2.TokenUsage:
    return activity_pb2.TokenUsage(
        input_tokens=count, output_tokens=2 * count, cached_tokens=3 * count, reasoning_tokens=4 * count
    )


async def test_an_agent_that_did_nothing_has_zeros(activities: Stub) -> None:
    agent_id = new_id()
    found = await _stats(activities, agent_id)
    assert found == activity_service_pb2.GetAgentStatsResponse(
        stats=activity_pb2.AgentStats(agent_id=agent_id, usage=activity_pb2.TokenUsage())
    )


async def test_runs_tell_everything_but_the_number_of_calls(activities: Stub) -> None:
    agent_id = new_id()
    await recorded(
        activities,
        _run(agent_id, 0, usage=_tokens(10), cost_nanos=500, duration=seconds(1)),
        _run(agent_id, 1, usage=_tokens(1), cost_nanos=70, duration=seconds(2), status=FAILED),
        _run(agent_id, 2, duration=seconds(6), status=CANCELED),
        _run(agent_id, 3, cost_nanos=8, currency="EUR", status=UNKNOWN),
        # Their tokens and cost are in the runs' already.
        _run(agent_id, 4, kind=LLM_CALL, usage=_tokens(10), cost_nanos=500, duration=seconds(100)),
        _run(agent_id, 4, kind=LLM_CALL),
        _run(agent_id, 5, kind=TOOL_CALL, cost_nanos=5),
        _run(agent_id, 5, kind=TOOL_CALL, status=FAILED),
        _run(new_id(), 6, usage=_tokens(1_000)),
    )
    found = await _stats(activities, agent_id)
    assert found.stats == activity_pb2.AgentStats(
        agent_id=agent_id,
        run_count=4,
        succeeded_count=1,
        failed_count=1,
        canceled_count=1,
        tool_call_count=2,
        failed_tool_call_count=1,
        llm_call_count=2,
        usage=_tokens(11),
        cost_nanos=570,
        unpriced_run_count=2,  # euros can't be added to dollars
        mean_duration=seconds(3),
        p50_duration=seconds(2),
        p95_duration=seconds(5.6),
        last_run_time=timestamp(NOON + timedelta(minutes=3)),
        error_rate=0.25,
        mean_cost_nanos=285,  # of the two whose price is known
    )


async def test_each_revision_is_summed_up_by_itself_newest_first(activities: Stub) -> None:
    agent_id = new_id()
    await recorded(
        activities,
        *[_run(agent_id, agent_revision=1, cost_nanos=1, duration=seconds(1)) for _ in range(3)],
        *[_run(agent_id, agent_revision=12, cost_nanos=10, duration=seconds(9)) for _ in range(2)],
        _run(agent_id, agent_revision=2, kind=TOOL_CALL),
        _run(agent_id, agent_revision=0, cost_nanos=100),  # nobody knows of which: it counts in the whole alone
    )
    found = await _stats(activities, agent_id)
    assert (found.stats.run_count, found.stats.cost_nanos, found.stats.agent_revision) == (6, 123, 0)
    assert [
        (stats.agent_revision, stats.run_count, stats.tool_call_count, stats.cost_nanos, stats.p50_duration.seconds)
        for stats in found.revisions
    ] == [(12, 2, 0, 20, 9), (2, 0, 1, 0, 0), (1, 3, 0, 3, 1)]
    assert {stats.agent_id for stats in found.revisions} == {agent_id}
    assert not found.revisions[1].HasField("last_run_time")
    assert not found.revisions[1].HasField("mean_duration")


async def test_the_hundred_newest_revisions_are_told(activities: Stub) -> None:
    agent_id = new_id()
    await recorded(activities, *[_run(agent_id, agent_revision=number) for number in range(1, 121)])
    found = await _stats(activities, agent_id)
    assert [stats.agent_revision for stats in found.revisions] == list(range(120, 20, -1))
    assert found.stats.run_count == 120


async def test_a_time_span_holds_its_start_and_not_its_end(activities: Stub) -> None:
    agent_id = new_id()
    made = [_run(agent_id, minute, cost_nanos=10**minute) for minute in range(4)]
    await recorded(activities, *made)
    start, end = made[1].start_time, made[3].start_time
    assert (await _stats(activities, agent_id, start_time=start, end_time=end)).stats.cost_nanos == 110
    assert (await _stats(activities, agent_id, start_time=start)).stats.cost_nanos == 1_110
    assert (await _stats(activities, agent_id, end_time=end)).stats.cost_nanos == 111
    assert (await _stats(activities, agent_id, start_time=end, end_time=end)).stats.run_count == 0


async def test_some_revisions_are_summed_up_by_themselves_and_together(activities: Stub) -> None:
    agent_id = new_id()
    await recorded(
        activities,
        *[_run(agent_id, agent_revision=1, cost_nanos=1, status=FAILED) for _ in range(3)],
        *[_run(agent_id, agent_revision=2, cost_nanos=10) for _ in range(4)],
        _run(agent_id, agent_revision=2, cost_nanos=30, status=FAILED),
        _run(agent_id, agent_revision=2, kind=TOOL_CALL, status=FAILED),
        _run(agent_id, agent_revision=3, cost_nanos=100),
        _run(agent_id, agent_revision=3, kind=TOOL_CALL),
        _run(agent_id, -1, agent_revision=2, cost_nanos=1_000),
    )
    found = await _stats(activities, agent_id, agent_revisions=[9, 2, 1], start_time=timestamp(NOON))
    assert (found.stats.run_count, found.stats.failed_count, found.stats.cost_nanos) == (8, 4, 73)
    assert (found.stats.tool_call_count, found.stats.failed_tool_call_count) == (1, 1)
    assert [
        (stats.agent_revision, stats.run_count, stats.error_rate, stats.mean_cost_nanos) for stats in found.revisions
    ] == [(2, 5, 0.2, 14), (1, 3, 1.0, 1)]


async def test_calls_are_left_out_where_nobody_asks_for_them(activities: Stub) -> None:
    agent_id = new_id()
    runs = [_run(agent_id, 0, usage=_tokens(1)), _run(agent_id, 1, agent_revision=2, status=FAILED)]
    await recorded(
        activities, *runs, _run(agent_id, 2, kind=LLM_CALL), _run(agent_id, 3, kind=TOOL_CALL, status=FAILED)
    )
    for revisions in ([], [1, 2]):
        whole = await _stats(activities, agent_id, agent_revisions=revisions)
        found = await _stats(activities, agent_id, agent_revisions=revisions, leave_out_calls=True)
        assert (whole.stats.llm_call_count, whole.stats.tool_call_count) == (1, 1)
        for stats in (whole.stats, *whole.revisions):
            for name in ("llm_call_count", "tool_call_count", "failed_tool_call_count"):
                stats.ClearField(name)
        assert found == whole


async def test_revisions_that_did_nothing_have_zeros(activities: Stub) -> None:
    agent_id = new_id()
    await recorded(activities, _run(agent_id, agent_revision=1))
    found = await _stats(activities, agent_id, agent_revisions=[2])
    assert (found.stats.run_count, found.stats.error_rate, found.stats.mean_cost_nanos) == (0, 0.0, 0)
    assert list(found.revisions) == []


async def test_sums_that_no_number_holds_stay_at_the_largest(activities: Stub) -> None:
    agent_id, most = new_id(), 2**63 - 1
    usage = activity_pb2.TokenUsage(input_tokens=most)
    await recorded(activities, *[_run(agent_id, usage=usage, cost_nanos=most) for _ in range(3)])
    found = await _stats(activities, agent_id)
    assert (found.stats.usage.input_tokens, found.stats.cost_nanos) == (most, most)


async def test_a_replay_counts_once(activities: Stub) -> None:
    agent_id = new_id()
    given = _run(agent_id, usage=_tokens(1))
    await recorded(activities, given)
    await recorded(activities, given)
    found = await _stats(activities, agent_id)
    assert (found.stats.run_count, found.stats.usage) == (1, _tokens(1))


async def test_a_stranger_finds_zeros(activities: Stub, strangers: Stub) -> None:
    agent_id = new_id()
    await recorded(activities, _run(agent_id))
    assert (await _stats(strangers, agent_id)).stats.run_count == 0


async def test_the_view_says_the_same(activities: Stub, app: Database, tenant_id: UUID) -> None:
    agents = [new_id(), new_id()]
    for agent_id in agents:
        await recorded(
            activities,
            *[_run(agent_id, agent_revision=number, cost_nanos=7, duration=seconds(number)) for number in (1, 1, 2)],
        )
    async with app.transaction(tenant_id) as transaction:
        rows = await transaction.fetch(
            "SELECT * FROM activity.agent_stats ORDER BY agent_id, agent_revision DESC NULLS FIRST"
        )
    assert {row["tenant_id"] for row in rows} == {tenant_id}
    for agent_id in agents:
        found = await _stats(activities, agent_id)
        assert [
            (row["agent_revision"] or 0, row["run_count"], row["cost_nanos"], row["p95_microseconds"])
            for row in rows
            if row["agent_id"] == UUID(agent_id)
        ] == [
            (one.agent_revision, one.run_count, one.cost_nanos, one.p95_duration.ToMicroseconds())
            for one in (found.stats, *found.revisions)
        ]
    assert await app.fetch("SELECT * FROM activity.agent_stats") == []


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("agent_id", {"agent_id": ""}),
        ("agent_id", {"agent_id": "x"}),
        (
            "end_time",
            {"agent_id": new_id(), "start_time": timestamp(NOON), "end_time": timestamp(NOON - timedelta(seconds=1))},
        ),
        ("agent_revisions", {"agent_id": new_id(), "agent_revisions": range(1, 22)}),
        ("agent_revisions[1]", {"agent_id": new_id(), "agent_revisions": [1, 0]}),
    ],
)
async def test_a_malformed_request_is_refused(activities: Stub, field: str, fields: dict[str, Any]) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await _stats(activities, **fields)
    assert list(refusal.violations) == [field]
