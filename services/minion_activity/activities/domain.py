"""Activities, and what they sum up to."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from minion_errors import NotFound

# How far an id's time may be ahead of ours: clocks differ, and rows of far months would wait in the wrong partition.
LONGEST_AHEAD = timedelta(days=1)
# What each value in a list or object takes on the wire at most beside its JSON text: tags, lengths, a number's bytes.
VALUE_BYTES = 24
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ActivityKind(enum.Enum):
    """What kind of thing was done."""

    RUN = "run"
    LLM_CALL = "llm_call"
    TOOL_CALL = "tool_call"
    INFERENCE = "inference"
    CUSTOM = "custom"
    ADMINISTRATION = "administration"


class ActivityStatus(enum.Enum):
    """How it ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens that models took."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Activity:
    """Something that was done. `cost_nanos` is None where the price isn't known, `duration` where nobody measured."""

    activity_id: UUID
    kind: ActivityKind
    status: ActivityStatus
    start_time: datetime
    duration: timedelta | None = None
    name: str = ""
    agent_id: UUID | None = None
    agent_revision: int = 0
    session_id: UUID | None = None
    run_id: UUID | None = None
    step_sequence: int = 0
    user_id: str = ""
    input: Any = None
    output: Any = None
    error_reason: str = ""
    error_message: str = ""
    usage: TokenUsage = TokenUsage()
    cost_nanos: int | None = None
    currency: str = ""
    tools_used: tuple[str, ...] = ()
    trace_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecordedActivity:
    """A row of the audit: the activity, who recorded it and when."""

    activity: Activity
    principal: str
    record_time: datetime


@dataclass(frozen=True, slots=True)
class Recorded:
    """How many rows of a batch were new, and how many were there already."""

    recorded_count: int
    duplicate_count: int


@dataclass(frozen=True, slots=True)
class ActivityFilter:
    """Which activities are listed: those that match all that is given, and began in [start_time, end_time)."""

    agent_id: UUID | None = None
    session_id: UUID | None = None
    run_id: UUID | None = None
    kind: ActivityKind | None = None
    status: ActivityStatus | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class ActivityPage:
    """One page of activities, newest first; the token is empty on the last."""

    activities: tuple[RecordedActivity, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class StatsQuery:
    """Whose activities are summed up, of those that began in [start_time, end_time); no revisions means all.

    With `leave_out_calls` calls of models and tools are not counted.
    """

    agent_id: UUID
    start_time: datetime | None = None
    end_time: datetime | None = None
    revisions: tuple[int, ...] = ()
    leave_out_calls: bool = False


@dataclass(frozen=True, slots=True)
class Stats:
    """What an agent did; `agent_revision` 0 is all revisions together. Durations are None where no run has one."""

    agent_revision: int
    run_count: int
    succeeded_count: int
    failed_count: int
    canceled_count: int
    tool_call_count: int
    failed_tool_call_count: int
    llm_call_count: int
    usage: TokenUsage
    cost_nanos: int
    unpriced_run_count: int
    mean_duration: timedelta | None
    p50_duration: timedelta | None
    p95_duration: timedelta | None
    last_run_time: datetime | None

    @property
    def error_rate(self) -> float:
        """Share of the runs that failed, 0 to 1; 0 when there was none."""
        return self.failed_count / self.run_count if self.run_count else 0.0

    @property
    def mean_cost_nanos(self) -> int:
        """Mean cost of the runs whose price is known, in nano-units of US dollars; 0 when there was none."""
        priced = self.run_count - self.unpriced_run_count
        return round(self.cost_nanos / priced) if priced else 0


@dataclass(frozen=True, slots=True)
class AgentStats:
    """An agent's figures: all together, and of its newest revisions."""

    agent_id: UUID
    stats: Stats
    revisions: tuple[Stats, ...]


def time_of(activity_id: UUID) -> datetime | None:
    """Reads when an id was made (RFC 9562, section 5.7); None when it is no UUIDv7 or its time has no date."""
    if activity_id.version != 7:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=activity_id.int >> 80)
    except OverflowError:
        return None


def bound_on_wire(content: bytes) -> int:
    """Bounds the bytes that a JSON text takes on the wire as a protobuf Value.

    Each value in it begins after one of `,[{` (those inside texts are counted as well, which errs on the right side).
    """
    values = 1 + content.count(b",") + content.count(b"[") + content.count(b"{")
    return len(content) + values * VALUE_BYTES


def not_found(activity_id: UUID) -> NotFound:
    """Builds the error for an activity that this tenant hasn't."""
    return NotFound(
        "There is no such activity.", reason="ACTIVITY_NOT_FOUND", metadata={"activity_id": str(activity_id)}
    )
