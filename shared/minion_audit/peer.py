"""The activity service, as the outbox sends to it."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

import grpc
from minion.activity.v1 import activity_pb2, activity_service_pb2, activity_service_pb2_grpc
from minion_grpc import peer_call
from minion_grpc.wire import json_bytes, off_loop, optional_text, to_duration, to_struct, to_timestamp, to_value

from minion_audit.domain import Activity

_CALL_SECONDS = 10.0
# What a row costs beside its contents, in bytes of JSON that take as long to convert.
_ROW_BYTES = 256
RETRYABLE = ("/minion.activity.v1.ActivityService/RecordActivities",)


class ActivityPeer:
    """Sends audit rows, for the caller in hand."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: activity_service_pb2_grpc.ActivityServiceAsyncStub = activity_service_pb2_grpc.ActivityServiceStub(
            channel
        )

    async def record(self, activities: Sequence[Activity]) -> None:
        """Sends rows; those that are there already stay as they are."""
        size = content_bytes(activities) + len(activities) * _ROW_BYTES
        request = await off_loop(_request, activities, size)
        with peer_call("activity"):
            await self._stub.RecordActivities(request, timeout=_CALL_SECONDS)


def content_bytes(activities: Iterable[Activity]) -> int:
    """Measures what rows hold, as JSON."""
    return json_bytes(
        value for activity in activities for value in (activity.input, activity.output, activity.metadata) if value
    )


def _request(activities: Sequence[Activity]) -> activity_service_pb2.RecordActivitiesRequest:
    return activity_service_pb2.RecordActivitiesRequest(activities=[to_proto(each) for each in activities])


def to_proto(activity: Activity) -> activity_pb2.Activity:
    """Writes a row."""
    message = activity_pb2.Activity(
        activity_id=str(activity.activity_id),
        kind=activity_pb2.ActivityKind.Value(f"ACTIVITY_KIND_{activity.kind.value}"),
        status=activity_pb2.ActivityStatus.Value(f"ACTIVITY_STATUS_{activity.status.value}"),
        name=activity.name[:200],
        agent_id=optional_text(activity.agent_id),
        agent_revision=activity.agent_revision,
        session_id=optional_text(activity.session_id),
        run_id=optional_text(activity.run_id),
        step_sequence=activity.step_sequence,
        user_id=activity.user_id,
        start_time=to_timestamp(activity.start_time),
        duration=to_duration(timedelta(microseconds=activity.nanoseconds // 1_000)),
        usage=activity_pb2.TokenUsage(
            input_tokens=activity.input_tokens,
            output_tokens=activity.output_tokens,
            cached_tokens=activity.cached_tokens,
            reasoning_tokens=activity.reasoning_tokens,
        ),
        cost_nanos=activity.cost_nanos,
        tools_used=activity.tools_used,
        trace_id=activity.trace_id,
        metadata=to_struct(activity.metadata),
    )
    if activity.input is not None:
        message.input.CopyFrom(to_value(activity.input))
    if activity.output is not None:
        message.output.CopyFrom(to_value(activity.output))
    if activity.error_reason:
        message.error.CopyFrom(activity_pb2.ActivityError(reason=activity.error_reason, message=activity.error_message))
    return message
