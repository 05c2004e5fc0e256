"""Between the contract's activities and the domain's."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from minion.activity.v1 import activity_pb2
from minion.activity.v1 import activity_service_pb2 as pb
from minion_errors import Violations
from minion_grpc import wire

from minion_activity.activities.domain import (
    LONGEST_AHEAD,
    Activity,
    ActivityFilter,
    ActivityKind,
    ActivityPage,
    ActivityStatus,
    AgentStats,
    Recorded,
    RecordedActivity,
    Stats,
    StatsQuery,
    TokenUsage,
    time_of,
)

_MOST_CONTENT_BYTES = 64 * 1024
_MOST_METADATA_BYTES = 16 * 1024
_LONGEST = timedelta(days=366)
_MOST_REVISIONS = 20
_DEFAULT_PAGE, _LARGEST_PAGE = 50, 500
# What a row costs beside its contents, in bytes of JSON that take as long to convert: some 0.15 ms.
_ROW_BYTES = 256
_CURRENCY = re.compile(r"[A-Z]{3}")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")

_TO_KIND = {
    ActivityKind.RUN: activity_pb2.ACTIVITY_KIND_RUN,
    ActivityKind.LLM_CALL: activity_pb2.ACTIVITY_KIND_LLM_CALL,
    ActivityKind.TOOL_CALL: activity_pb2.ACTIVITY_KIND_TOOL_CALL,
    ActivityKind.INFERENCE: activity_pb2.ACTIVITY_KIND_INFERENCE,
    ActivityKind.CUSTOM: activity_pb2.ACTIVITY_KIND_CUSTOM,
    ActivityKind.ADMINISTRATION: activity_pb2.ACTIVITY_KIND_ADMINISTRATION,
}
_FROM_KIND = {number: kind for kind, number in _TO_KIND.items()}
_TO_STATUS = {
    ActivityStatus.SUCCEEDED: activity_pb2.ACTIVITY_STATUS_SUCCEEDED,
    ActivityStatus.FAILED: activity_pb2.ACTIVITY_STATUS_FAILED,
    ActivityStatus.CANCELED: activity_pb2.ACTIVITY_STATUS_CANCELED,
    ActivityStatus.UNKNOWN: activity_pb2.ACTIVITY_STATUS_UNKNOWN,
}
_FROM_STATUS = {number: status for status, number in _TO_STATUS.items()}


@dataclass(frozen=True, slots=True)
class ListRequest:
    """Which page of which list."""

    wanted: ActivityFilter
    page_size: int
    page_token: str


def request_bytes(request: pb.RecordActivitiesRequest) -> int:
    """Measures a batch for `wire.off_loop`."""
    return request.ByteSize() + len(request.activities) * _ROW_BYTES


def page_bytes(activities: Sequence[RecordedActivity]) -> int:
    """Measures activities for `wire.off_loop`."""
    contents = (
        value
        for recorded in activities
        for value in (recorded.activity.input, recorded.activity.output, recorded.activity.metadata)
        if value
    )
    return wire.json_bytes(contents) + len(activities) * _ROW_BYTES


def record_from_proto(request: pb.RecordActivitiesRequest, *, now: datetime) -> Sequence[Activity]:
    """Reads a batch; `now` is what ids may not be far ahead of."""
    violations = Violations()
    violations.count("activities", request.activities, minimum=1, maximum=500)
    activities = [
        _from_proto(activity, f"activities[{index}]", now, violations)
        for index, activity in enumerate(request.activities)
    ]
    first: dict[UUID, int] = {}
    for index, activity in enumerate(activities):
        # What is no id at all has been told already.
        if activity.activity_id.int and first.setdefault(activity.activity_id, index) != index:
            violations.add(f"activities[{index}].activity_id", f"is that of activities[{first[activity.activity_id]}]")
    violations.raise_if_any()
    return activities


def recorded_to_proto(recorded: Recorded) -> pb.RecordActivitiesResponse:
    """Writes what became of a batch."""
    return pb.RecordActivitiesResponse(recorded_count=recorded.recorded_count, duplicate_count=recorded.duplicate_count)


def get_from_proto(request: pb.GetActivityRequest) -> UUID:
    """Reads which activity is asked for."""
    violations = Violations()
    activity_id = violations.identifier("activity_id", request.activity_id)
    violations.raise_if_any()
    return activity_id


def list_from_proto(request: pb.ListActivitiesRequest) -> ListRequest:
    """Reads which activities to list."""
    violations = Violations()
    if request.kind and request.kind not in _FROM_KIND:
        violations.add("kind", f"is no kind: {request.kind}")
    if request.status and request.status not in _FROM_STATUS:
        violations.add("status", f"is no status: {request.status}")
    if request.page_size < 0:
        violations.add("page_size", f"must not be negative, is {request.page_size}")
    start_time, end_time = _times_from_proto(request, violations)
    wanted = ActivityFilter(
        agent_id=violations.optional_identifier("agent_id", request.agent_id),
        session_id=violations.optional_identifier("session_id", request.session_id),
        run_id=violations.optional_identifier("run_id", request.run_id),
        kind=_FROM_KIND.get(request.kind),
        status=_FROM_STATUS.get(request.status),
        start_time=start_time,
        end_time=end_time,
    )
    violations.raise_if_any()
    return ListRequest(wanted, min(request.page_size or _DEFAULT_PAGE, _LARGEST_PAGE), request.page_token)


def page_to_proto(page: ActivityPage) -> pb.ListActivitiesResponse:
    """Writes one page."""
    return pb.ListActivitiesResponse(
        activities=[to_proto(recorded) for recorded in page.activities], next_page_token=page.next_page_token
    )


def stats_from_proto(request: pb.GetAgentStatsRequest) -> StatsQuery:
    """Reads whose activities to sum up."""
    violations = Violations()
    agent_id = violations.identifier("agent_id", request.agent_id)
    start_time, end_time = _times_from_proto(request, violations)
    violations.count("agent_revisions", request.agent_revisions, maximum=_MOST_REVISIONS)
    for index, revision in enumerate(request.agent_revisions):
        if revision < 1:
            violations.add(f"agent_revisions[{index}]", f"must be 1 or more, is {revision}")
    violations.raise_if_any()
    return StatsQuery(agent_id, start_time, end_time, tuple(request.agent_revisions), request.leave_out_calls)


def stats_to_proto(found: AgentStats) -> pb.GetAgentStatsResponse:
    """Writes an agent's figures."""
    agent_id = str(found.agent_id)
    return pb.GetAgentStatsResponse(
        stats=_stats_to_proto(agent_id, found.stats),
        revisions=[_stats_to_proto(agent_id, stats) for stats in found.revisions],
    )


def to_proto(recorded: RecordedActivity) -> activity_pb2.Activity:
    """Writes an activity."""
    activity = recorded.activity
    error = None
    if activity.error_reason or activity.error_message:
        error = activity_pb2.ActivityError(reason=activity.error_reason, message=activity.error_message)
    return activity_pb2.Activity(
        activity_id=str(activity.activity_id),
        kind=_TO_KIND[activity.kind],
        status=_TO_STATUS[activity.status],
        name=activity.name,
        agent_id=wire.optional_text(activity.agent_id),
        agent_revision=activity.agent_revision,
        session_id=wire.optional_text(activity.session_id),
        run_id=wire.optional_text(activity.run_id),
        step_sequence=activity.step_sequence,
        user_id=activity.user_id,
        input=None if activity.input is None else wire.to_value(activity.input),
        output=None if activity.output is None else wire.to_value(activity.output),
        error=error,
        start_time=wire.to_timestamp(activity.start_time),
        duration=None if activity.duration is None else wire.to_duration(activity.duration),
        usage=None if activity.usage == TokenUsage() else _usage_to_proto(activity.usage),
        cost_nanos=activity.cost_nanos,
        currency=activity.currency,
        tools_used=activity.tools_used,
        trace_id=activity.trace_id,
        metadata=wire.to_struct(activity.metadata) if activity.metadata else None,
        principal=recorded.principal,
        record_time=wire.to_timestamp(recorded.record_time),
    )


def _from_proto(activity: activity_pb2.Activity, field: str, now: datetime, violations: Violations) -> Activity:
    kind, status = _FROM_KIND.get(activity.kind), _FROM_STATUS.get(activity.status)
    if kind is None:
        violations.add(f"{field}.kind", f"is no kind: {activity.kind}" if activity.kind else "is required")
    if status is None:
        violations.add(f"{field}.status", f"is no status: {activity.status}" if activity.status else "is required")
    if not activity.HasField("start_time"):
        violations.add(f"{field}.start_time", "is required")
    cost_nanos = activity.cost_nanos if activity.HasField("cost_nanos") else None
    _not_negative(f"{field}.agent_revision", activity.agent_revision, violations)
    _not_negative(f"{field}.step_sequence", activity.step_sequence, violations)
    _not_negative(f"{field}.cost_nanos", cost_nanos or 0, violations)
    return Activity(
        activity_id=_id_from_proto(activity.activity_id, f"{field}.activity_id", now, violations),
        kind=kind or ActivityKind.CUSTOM,
        status=status or ActivityStatus.UNKNOWN,
        start_time=wire.from_timestamp(activity.start_time, f"{field}.start_time", violations),
        duration=_duration_from_proto(activity, f"{field}.duration", violations),
        name=violations.length(f"{field}.name", activity.name, maximum=200),
        agent_id=violations.optional_identifier(f"{field}.agent_id", activity.agent_id),
        agent_revision=activity.agent_revision,
        session_id=violations.optional_identifier(f"{field}.session_id", activity.session_id),
        run_id=violations.optional_identifier(f"{field}.run_id", activity.run_id),
        step_sequence=activity.step_sequence,
        user_id=violations.length(f"{field}.user_id", activity.user_id, maximum=200),
        input=wire.from_bounded_value(activity.input, f"{field}.input", violations, maximum=_MOST_CONTENT_BYTES),
        output=wire.from_bounded_value(activity.output, f"{field}.output", violations, maximum=_MOST_CONTENT_BYTES),
        error_reason=violations.length(f"{field}.error.reason", activity.error.reason, maximum=64),
        error_message=violations.length(f"{field}.error.message", activity.error.message, maximum=2_000),
        usage=_usage_from_proto(activity.usage, f"{field}.usage", violations),
        cost_nanos=cost_nanos,
        currency=_currency_from_proto(activity.currency, f"{field}.currency", cost_nanos, violations),
        tools_used=_tools_from_proto(activity.tools_used, f"{field}.tools_used", violations),
        trace_id=_trace_id_from_proto(activity.trace_id, f"{field}.trace_id", violations),
        metadata=wire.from_bounded_struct(
            activity.metadata, f"{field}.metadata", violations, maximum=_MOST_METADATA_BYTES
        ),
    )


def _id_from_proto(given: str, field: str, now: datetime, violations: Violations) -> UUID:
    activity_id = violations.identifier(field, given)
    if not activity_id.int:
        return activity_id
    made = time_of(activity_id)
    if activity_id.version != 7:
        violations.add(field, "must be a UUID of version 7")
    elif made is None or made > now + LONGEST_AHEAD:
        violations.add(field, "holds a time more than a day ahead")
    return activity_id


def _duration_from_proto(activity: activity_pb2.Activity, field: str, violations: Violations) -> timedelta | None:
    if not activity.HasField("duration"):
        return None
    duration = wire.from_duration(activity.duration, field, violations)
    if not timedelta() <= duration <= _LONGEST:
        violations.add(field, "must be 0 to 366 days")
    return duration


def _usage_from_proto(usage: activity_pb2.TokenUsage, field: str, violations: Violations) -> TokenUsage:
    _not_negative(f"{field}.input_tokens", usage.input_tokens, violations)
    _not_negative(f"{field}.output_tokens", usage.output_tokens, violations)
    _not_negative(f"{field}.cached_tokens", usage.cached_tokens, violations)
    _not_negative(f"{field}.reasoning_tokens", usage.reasoning_tokens, violations)
    return TokenUsage(usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens)


def _currency_from_proto(given: str, field: str, cost_nanos: int | None, violations: Violations) -> str:
    if given and _CURRENCY.fullmatch(given) is None:
        violations.add(field, "must be an ISO 4217 code such as USD")
    if cost_nanos is None:
        return ""
    return given or "USD"


def _tools_from_proto(given: Sequence[str], field: str, violations: Violations) -> tuple[str, ...]:
    violations.count(field, given, maximum=128)
    for index, name in enumerate(given):
        violations.length(f"{field}[{index}]", name, minimum=1, maximum=200)
    return tuple(given)


def _trace_id_from_proto(given: str, field: str, violations: Violations) -> str:
    trace_id = given.lower()
    if given and _TRACE_ID.fullmatch(trace_id) is None:
        violations.add(field, "must have 32 hexadecimal characters")
    return trace_id


def _times_from_proto(
    request: pb.ListActivitiesRequest | pb.GetAgentStatsRequest, violations: Violations
) -> tuple[datetime | None, datetime | None]:
    start = end = None
    if request.HasField("start_time"):
        start = wire.from_timestamp(request.start_time, "start_time", violations)
    if request.HasField("end_time"):
        end = wire.from_timestamp(request.end_time, "end_time", violations)
    if start is not None and end is not None and end < start:
        violations.add("end_time", "must not be before start_time")
    return start, end


def _not_negative(field: str, number: int, violations: Violations) -> None:
    if number < 0:
        violations.add(field, f"must not be negative, is {number}")


def _stats_to_proto(agent_id: str, stats: Stats) -> activity_pb2.AgentStats:
    mean, median, slow = (
        None if duration is None else wire.to_duration(duration)
        for duration in (stats.mean_duration, stats.p50_duration, stats.p95_duration)
    )
    return activity_pb2.AgentStats(
        agent_id=agent_id,
        agent_revision=stats.agent_revision,
        run_count=stats.run_count,
        succeeded_count=stats.succeeded_count,
        failed_count=stats.failed_count,
        canceled_count=stats.canceled_count,
        tool_call_count=stats.tool_call_count,
        llm_call_count=stats.llm_call_count,
        usage=_usage_to_proto(stats.usage),
        cost_nanos=stats.cost_nanos,
        unpriced_run_count=stats.unpriced_run_count,
        mean_duration=mean,
        p50_duration=median,
        p95_duration=slow,
        last_run_time=wire.to_optional_timestamp(stats.last_run_time),
        failed_tool_call_count=stats.failed_tool_call_count,
        error_rate=stats.error_rate,
        mean_cost_nanos=stats.mean_cost_nanos,
    )


def _usage_to_proto(usage: TokenUsage) -> activity_pb2.TokenUsage:
    return activity_pb2.TokenUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )
