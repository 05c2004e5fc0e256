"""The activity service's callers in tests, and activities to record."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from minion.activity.v1 import activity_pb2, activity_service_pb2
from minion.activity.v1.activity_service_pb2_grpc import ActivityServiceStub
from minion_grpc import wire
from minion_testing.serving import Served
from uuid_utils.compat import uuid7

if TYPE_CHECKING:
    # Of the type stubs alone.
    from minion.activity.v1.activity_service_pb2_grpc import ActivityServiceAsyncStub

Stub: TypeAlias = "ActivityServiceAsyncStub"

RUN = activity_pb2.ACTIVITY_KIND_RUN
LLM_CALL = activity_pb2.ACTIVITY_KIND_LLM_CALL
TOOL_CALL = activity_pb2.ACTIVITY_KIND_TOOL_CALL
SUCCEEDED = activity_pb2.ACTIVITY_STATUS_SUCCEEDED
FAILED = activity_pb2.ACTIVITY_STATUS_FAILED
CANCELED = activity_pb2.ACTIVITY_STATUS_CANCELED
UNKNOWN = activity_pb2.ACTIVITY_STATUS_UNKNOWN

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)


@asynccontextmanager
async def calling(served: Served, tenant_id: UUID, *, principal: str = "key:test") -> AsyncIterator[Stub]:
    """Opens a channel for a tenant, as the gateway calls."""
    async with served.acting(tenant_id, principal=principal) as channel:
        yield ActivityServiceStub(channel)


def new_id() -> str:
    """Makes an id."""
    return str(uuid7())


def id_at(moment: datetime, number: int = 0) -> str:
    """Makes a UUIDv7 of a moment."""
    milliseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return str(UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | number))


def timestamp(moment: datetime) -> Timestamp:
    """Writes a moment."""
    return wire.to_timestamp(moment)


def seconds(count: float) -> Duration:
    """Writes a span of time."""
    return wire.to_duration(timedelta(seconds=count))


def struct(**values: Any) -> Struct:
    """Makes a Struct."""
    return wire.to_struct(values)


def value(content: Any) -> Value:
    """Makes a Value."""
    return wire.to_value(content)


def activity(**fields: Any) -> activity_pb2.Activity:
    """An activity to record: a tool's call that succeeded, unless the fields say otherwise."""
    defaults = {"activity_id": new_id(), "kind": TOOL_CALL, "status": SUCCEEDED, "start_time": timestamp(NOON)}
    return activity_pb2.Activity(**{**defaults, **fields})


def full(**fields: Any) -> activity_pb2.Activity:
    """An activity with every field that a caller gives."""
    return activity(
        **{
            "kind": LLM_CALL,
            "status": FAILED,
            "name": "gpt-5",
            "agent_id": new_id(),
            "agent_revision": 3,
            "session_id": new_id(),
            "run_id": new_id(),
            "step_sequence": 2,
            "user_id": "ann",
            "input": value([{"role": "user", "text": "What time is it?", "n": 1, "x": 0.25, "none": None}]),
            "output": value("noon"),
            "error": activity_pb2.ActivityError(reason="PROVIDER_UNAVAILABLE", message="It is away."),
            "start_time": timestamp(NOON + timedelta(microseconds=123_456)),
            "duration": seconds(1.234567),
            "usage": activity_pb2.TokenUsage(input_tokens=100, output_tokens=20, cached_tokens=50, reasoning_tokens=7),
            "cost_nanos": 1_234,
            "currency": "EUR",
            "tools_used": ["clock", "calculator"],
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
            "metadata": struct(team="blue", tags=["a", "b"]),
            **fields,
        }
    )


def batch(*activities: activity_pb2.Activity) -> activity_service_pb2.RecordActivitiesRequest:
    """A request to record activities."""
    return activity_service_pb2.RecordActivitiesRequest(activities=activities)


async def recorded(stub: Stub, *activities: activity_pb2.Activity) -> tuple[int, int]:
    """Records activities; gives how many were new and how many were there."""
    response = await stub.RecordActivities(batch(*activities))
    return response.recorded_count, response.duplicate_count


async def fetched(stub: Stub, activity_id: str) -> activity_pb2.Activity:
    """Reads an activity."""
    response = await stub.GetActivity(activity_service_pb2.GetActivityRequest(activity_id=activity_id))
    return response.activity


async def listed(stub: Stub, **filters: Any) -> list[str]:
    """Lists the ids of one page."""
    response = await stub.ListActivities(activity_service_pb2.ListActivitiesRequest(**filters))
    return [found.activity_id for found in response.activities]


async def pages(stub: Stub, **filters: Any) -> list[list[activity_pb2.Activity]]:
    """Lists all pages."""
    found: list[list[activity_pb2.Activity]] = []
    token = ""
    while True:
        request = activity_service_pb2.ListActivitiesRequest(**filters, page_token=token)
        response = await stub.ListActivities(request)
        found.append(list(response.activities))
        token = response.next_page_token
        if not token:
            return found


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Waits until a condition of the database's holds, a minute at most."""
    async with asyncio.timeout(60):
        while not await holds():  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.01)
