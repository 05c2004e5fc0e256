"""RecordActivities: every limit of the contract, at its edge and beyond."""

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from minion.activity.v1 import activity_pb2
from minion_testing.errors import refused

from tests.minion_activity.stage import (
    Stub,
    activity,
    id_at,
    new_id,
    recorded,
    seconds,
    struct,
    value,
)

_UNIT = 1_000_000_000


def _error(**fields: str) -> activity_pb2.ActivityError:
    return activity_pb2.ActivityError(**fields)


def _usage(**fields: int) -> activity_pb2.TokenUsage:
    return activity_pb2.TokenUsage(**fields)


def _nested(levels: int) -> Value:
    found = Value(string_value="x")
    for _ in range(levels):
        outer = Value()
        outer.list_value.values.append(found)
        found = outer
    return found


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("activity_id", {"activity_id": ""}),
        ("activity_id", {"activity_id": "x"}),
        ("activity_id", {"activity_id": "6a2f41a3-c54c-4ce8-82d2-5e1e7e3b1b57"}),
        ("activity_id", {"activity_id": "{01890a5d-ac96-774b-bcce-b302099a8057}"}),
        ("activity_id", {"activity_id": "ffffffff-ffff-7fff-bfff-ffffffffffff"}),
        ("kind", {"kind": 0}),
        ("kind", {"kind": 99}),
        ("status", {"status": 0}),
        ("status", {"status": 99}),
        ("name", {"name": "x" * 201}),
        ("name", {"name": "a\x00b"}),
        ("agent_id", {"agent_id": "x"}),
        ("agent_revision", {"agent_revision": -1}),
        ("session_id", {"session_id": "x"}),
        ("run_id", {"run_id": "x"}),
        ("step_sequence", {"step_sequence": -1}),
        ("user_id", {"user_id": "x" * 201}),
        ("input", {"input": value("x" * (6 * 64 * 1024))}),
        ("input", {"input": value("x" * (64 * 1024 - 1))}),
        ("output", {"output": value("é" * (32 * 1024))}),
        ("input", {"input": Value(number_value=float("nan"))}),
        ("output[0]", {"output": value(["a\x00b"])}),
        ("input" + "[0]" * 32, {"input": _nested(32)}),
        ("error.reason", {"error": _error(reason="X" * 65)}),
        ("error.message", {"error": _error(message="x" * 2_001)}),
        ("start_time", {"start_time": None}),
        ("start_time", {"start_time": Timestamp(seconds=2**60)}),
        ("duration", {"duration": Duration(seconds=-1)}),
        ("duration", {"duration": Duration(seconds=366 * 86_400, nanos=1_000)}),
        ("usage.input_tokens", {"usage": _usage(input_tokens=-1)}),
        ("usage.output_tokens", {"usage": _usage(output_tokens=-1)}),
        ("usage.cached_tokens", {"usage": _usage(cached_tokens=-1)}),
        ("usage.reasoning_tokens", {"usage": _usage(reasoning_tokens=-1)}),
        ("cost_nanos", {"cost_nanos": -1}),
        ("currency", {"currency": "usd"}),
        ("currency", {"currency": "USDX"}),
        ("tools_used", {"tools_used": ["clock"] * 129}),
        ("tools_used[1]", {"tools_used": ["clock", "x" * 201]}),
        ("tools_used[0]", {"tools_used": [""]}),
        ("trace_id", {"trace_id": "0af7651916cd43dd8448eb211c80319"}),
        ("trace_id", {"trace_id": "0af7651916cd43dd8448eb211c80319g"}),
        ("metadata", {"metadata": struct(a="x" * (16 * 1024 - 7))}),
    ],
)
async def test_a_field_beyond_its_limit_is_refused(activities: Stub, path: str, fields: dict[str, Any]) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await recorded(activities, activity(), activity(**fields))
    assert list(refusal.violations) == [f"activities[1].{path}"]


async def test_every_field_is_taken_at_its_limit(activities: Stub) -> None:
    most = activity(
        name="é" * 200,
        agent_revision=2**63 - 1,
        step_sequence=2**31 - 1,
        user_id="é" * 200,
        input=value("x" * (64 * 1024 - 2)),
        output=_nested(31),
        error=_error(reason="X" * 64, message="é" * 2_000),
        duration=seconds(366 * 86_400),
        usage=_usage(
            input_tokens=2**63 - 1, output_tokens=2**63 - 1, cached_tokens=2**63 - 1, reasoning_tokens=2**63 - 1
        ),
        cost_nanos=2**63 - 1,
        tools_used=["é" * 200] * 128,
        trace_id="0AF7651916CD43DD8448EB211C80319C",
        metadata=struct(a="x" * (16 * 1024 - 8)),
        activity_id=id_at(datetime.now(UTC) + timedelta(hours=23)),
    )
    assert await recorded(activities, most) == (1, 0)


async def test_an_id_of_the_day_after_tomorrow_is_refused(activities: Stub) -> None:
    ahead = activity(activity_id=id_at(datetime.now(UTC) + timedelta(hours=25)))
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await recorded(activities, ahead)
    assert refusal.violations == {"activities[0].activity_id": "holds a time more than a day ahead"}


async def test_an_id_that_comes_twice_in_a_batch_is_refused(activities: Stub) -> None:
    given = new_id()
    repeated = [activity(activity_id=given), activity(), activity(activity_id=given.upper())]
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await recorded(activities, *repeated)
    assert refusal.violations == {"activities[2].activity_id": "is that of activities[0]"}


@pytest.mark.parametrize("count", [0, 501])
async def test_a_batch_has_one_to_five_hundred_rows(activities: Stub, count: int) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await recorded(activities, *[activity() for _ in range(count)])
    assert list(refusal.violations) == ["activities"]


async def test_all_faults_are_told_at_once(activities: Stub) -> None:
    bad = activity(activity_id="x", kind=0, start_time=None, name="x" * 201, metadata=Struct())
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await recorded(activities, bad, activity(status=0))
    assert set(refusal.violations) == {
        "activities[0].activity_id",
        "activities[0].kind",
        "activities[0].start_time",
        "activities[0].name",
        "activities[1].status",
    }
