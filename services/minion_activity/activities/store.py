"""Activities in Postgres: each operation is one function and one round trip."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from minion_postgres import Database, Record, queries

from minion_activity.activities.domain import (
    VALUE_BYTES,
    Activity,
    ActivityFilter,
    ActivityKind,
    ActivityStatus,
    AgentStats,
    Recorded,
    RecordedActivity,
    Stats,
    StatsQuery,
    TokenUsage,
    bound_on_wire,
)

_QUERIES = queries.load(__package__)
_KINDS = {kind.value: kind for kind in ActivityKind}
_STATUSES = {status.value: status for status in ActivityStatus}
# Where an activity stands in a list: its start, its id.
Place = tuple[datetime, UUID]
_FIRST_ID = UUID(int=0)
# What a reply may take, well below the 4 MiB that clients accept. The largest row takes less than a third of it, but is
# counted as more than all of it where its texts are commas.
PAGE_BYTES = 3 * 1024 * 1024
_MOST_REVISIONS = 100
# What a row takes on the wire beside its texts and JSON values.
_FRAME_BYTES = 512
_MICROSECOND = timedelta(microseconds=1)


class ActivityStore:
    """Reads and writes activities."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, tenant_id: UUID, principal: str, activities: Sequence[Activity]) -> Recorded:
        """Stores the activities that aren't there yet, all of them or none."""
        batch = [_row(activity, principal) for activity in activities]
        arguments = (tenant_id, principal, batch)
        try:
            recorded = await self._database.fetch_value(_QUERIES.record_activities, *arguments)
        except asyncpg.CheckViolationError as error:
            if error.constraint_name is not None:
                raise
            # A month's partition was attached while its rows were on their way to the default one.
            recorded = await self._database.fetch_value(_QUERIES.record_activities, *arguments)
        return Recorded(recorded_count=recorded, duplicate_count=len(batch) - recorded)

    async def get(self, tenant_id: UUID, activity_id: UUID) -> RecordedActivity | None:
        """Reads an activity, if there is one."""
        row = await self._database.fetch_one(_QUERIES.get_activity, tenant_id, activity_id)
        return _recorded_from_row(row) if row is not None else None

    async def list(
        self, tenant_id: UUID, wanted: ActivityFilter, *, before: Place | None, page_size: int
    ) -> tuple[tuple[RecordedActivity, ...], bool]:
        """Reads a page of activities, newest first, less than 3 MiB of them; tells too whether there are more."""
        time, activity_id = before or (wanted.end_time, _FIRST_ID)
        rows = await self._database.fetch(
            _QUERIES.list_activities,
            tenant_id,
            wanted.agent_id,
            wanted.session_id,
            wanted.run_id,
            wanted.kind.value if wanted.kind else None,
            wanted.status.value if wanted.status else None,
            wanted.start_time,
            time,
            activity_id,
            page_size + 1,
            PAGE_BYTES,
        )
        kept: list[RecordedActivity] = []
        filled = 0
        for row in rows[:page_size]:
            filled += row["byte_count"]
            if kept and filled > PAGE_BYTES:
                break
            kept.append(_recorded_from_row(row))
        return tuple(kept), len(kept) < len(rows)

    async def agent_stats(self, tenant_id: UUID, query: StatsQuery) -> AgentStats:
        """Sums up an agent's activities, all together and for its 100 newest revisions."""
        rows = await self._database.fetch(
            _QUERIES.get_agent_stats,
            tenant_id,
            query.agent_id,
            query.start_time,
            query.end_time,
            list(query.revisions) or None,
            _MOST_REVISIONS,
            query.leave_out_calls,
        )
        whole, *revisions = (_stats_from_row(row) for row in rows)
        return AgentStats(query.agent_id, whole, tuple(revisions))


class PartitionStore:
    """Makes partitions; its database is the owner's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def make(self, *, months_ahead: int) -> Sequence[date]:
        """Makes the partitions of this month and the next ones; returns the months of those that were missing."""
        async with self._database.transaction(None) as transaction:
            rows = await transaction.fetch(_QUERIES.make_partitions, months_ahead)
        return [row["month"] for row in rows]


def _row(activity: Activity, principal: str) -> dict[str, Any]:
    """Writes an activity as activity.record_activities reads it."""
    usage = activity.usage
    contents = [
        None if value is None else orjson.dumps(value)
        for value in (activity.input, activity.output, activity.metadata or None)
    ]
    texts = (activity.name, activity.user_id, principal, activity.error_reason, activity.error_message)
    tools = activity.tools_used
    byte_count = (
        _FRAME_BYTES
        + sum(len(text.encode()) for text in texts)
        + sum(len(name.encode()) + VALUE_BYTES for name in tools)
        + sum(bound_on_wire(content) for content in contents if content is not None)
    )
    given, result, metadata = (None if content is None else orjson.Fragment(content) for content in contents)
    return {
        "activity_id": activity.activity_id,
        "agent_id": activity.agent_id,
        "session_id": activity.session_id,
        "run_id": activity.run_id,
        "start_time": activity.start_time,
        "duration_microseconds": None if activity.duration is None else activity.duration // _MICROSECOND,
        "agent_revision": activity.agent_revision,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost_nanos": activity.cost_nanos,
        "step_sequence": activity.step_sequence,
        "byte_count": byte_count,
        "kind": activity.kind.value,
        "status": activity.status.value,
        "currency": activity.currency,
        "name": activity.name,
        "user_id": activity.user_id,
        "trace_id": activity.trace_id,
        "error_reason": activity.error_reason,
        "error_message": activity.error_message,
        "tools_used": tools or None,
        "input": given,
        "output": result,
        "metadata": metadata,
    }


def _recorded_from_row(row: Record) -> RecordedActivity:
    activity = Activity(
        activity_id=row["activity_id"],
        kind=_KINDS[row["kind"]],
        status=_STATUSES[row["status"]],
        start_time=row["start_time"],
        duration=_span(row["duration_microseconds"]),
        name=row["name"],
        agent_id=row["agent_id"],
        agent_revision=row["agent_revision"],
        session_id=row["session_id"],
        run_id=row["run_id"],
        step_sequence=row["step_sequence"],
        user_id=row["user_id"],
        input=row["input"],
        output=row["output"],
        error_reason=row["error_reason"],
        error_message=row["error_message"],
        usage=_usage_from_row(row),
        cost_nanos=row["cost_nanos"],
        currency=row["currency"],
        tools_used=tuple(row["tools_used"] or ()),
        trace_id=row["trace_id"],
        metadata=row["metadata"] or {},
    )
    return RecordedActivity(activity, row["principal"], row["record_time"])


def _stats_from_row(row: Record) -> Stats:
    return Stats(
        agent_revision=row["agent_revision"] or 0,
        run_count=row["run_count"],
        succeeded_count=row["succeeded_count"],
        failed_count=row["failed_count"],
        canceled_count=row["canceled_count"],
        tool_call_count=row["tool_call_count"],
        failed_tool_call_count=row["failed_tool_call_count"],
        llm_call_count=row["llm_call_count"],
        usage=_usage_from_row(row),
        cost_nanos=row["cost_nanos"],
        unpriced_run_count=row["unpriced_run_count"],
        mean_duration=_span(row["mean_microseconds"]),
        p50_duration=_span(row["p50_microseconds"]),
        p95_duration=_span(row["p95_microseconds"]),
        last_run_time=row["last_run_time"],
    )


def _usage_from_row(row: Record) -> TokenUsage:
    return TokenUsage(row["input_tokens"], row["output_tokens"], row["cached_tokens"], row["reasoning_tokens"])


def _span(microseconds: int | None) -> timedelta | None:
    return None if microseconds is None else timedelta(microseconds=microseconds)
