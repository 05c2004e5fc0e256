"""A row of the audit, as a service writes it down."""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from pydantic import TypeAdapter

# The activity service takes 64 KiB of JSON a field; masking can lengthen it, and an audit is no store of documents.
MAXIMUM_CONTENT_BYTES = 32 * 1024
_MAXIMUM_MESSAGE = 2_000
_MAXIMUM_REASON = 64
_CUTS = (8_000, 1_000, 100)
# A digit and a comma.
_LEAST_BYTES_A_PART = 2
_TOO_LARGE = "… (too large for the audit)"


class ActivityKind(enum.Enum):
    """What kind of thing was done."""

    RUN = "RUN"
    LLM_CALL = "LLM_CALL"
    TOOL_CALL = "TOOL_CALL"
    INFERENCE = "INFERENCE"
    ADMINISTRATION = "ADMINISTRATION"


class ActivityStatus(enum.Enum):
    """How it ended."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Activity:
    """One thing that was done. `activity_id` is a UUIDv7: whoever sends the row again sends the same one."""

    activity_id: UUID
    kind: ActivityKind
    status: ActivityStatus
    name: str
    start_time: datetime
    nanoseconds: int
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
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanos: int | None = None
    tools_used: tuple[str, ...] = ()
    trace_id: str = ""
    span_id: str = ""  # of the call that it belongs to, where its trace is recorded
    metadata: dict[str, Any] = field(default_factory=dict)

    def row(self, principal: str) -> dict[str, object]:
        """Its stored form, done by `principal`."""
        return {"activity_id": self.activity_id, "principal": principal, "payload": self}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row that waits in the outbox."""

    principal: str
    activity: Activity


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row of the outbox that this release can't read, and the kind of fault."""

    activity_id: UUID
    error: str


_STORED = TypeAdapter(Activity)


def from_stored(payload: Any) -> Activity:
    """Reads a stored row; fails loudly on anything that `Activity.row` doesn't write."""
    return _STORED.validate_python(payload)


def clipped(value: Any) -> Any:
    """Returns the value, with long texts cut and marked when it is too large for the audit."""
    if len(orjson.dumps(value, default=str)) <= MAXIMUM_CONTENT_BYTES:
        return value
    if not _can_be_cut(value):
        return _TOO_LARGE
    for limit in _CUTS:
        cut = _cut(value, limit)
        if len(orjson.dumps(cut, default=str)) <= MAXIMUM_CONTENT_BYTES:
            return cut
    return _TOO_LARGE


def error_fields(reason: str, message: str) -> dict[str, Any]:
    """Fits an error into the activity service's limits."""
    return {"error_reason": reason[:_MAXIMUM_REASON], "error_message": message[:_MAXIMUM_MESSAGE]}


def _can_be_cut(value: Any) -> bool:
    """Whether there are long texts to cut, and few enough parts beside; looks at no more than tells.

    Megabytes of small parts would be copied three times for nothing, on the event loop.
    """
    parts, has_long_text, waiting = 0, False, [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                has_long_text = has_long_text or len(text) > _CUTS[-1]
                continue
            case Mapping() as items:
                parts += len(items)
                inner: Iterable[Any] = items.values()
            case Sequence() as items:
                parts += len(items)
                inner = items
            case _:
                continue
        if parts * _LEAST_BYTES_A_PART > MAXIMUM_CONTENT_BYTES:
            return False
        waiting += inner
    return has_long_text


def _cut(value: Any, limit: int) -> Any:
    match value:
        case str() if len(value) > limit:
            return f"{value[:limit]}… ({len(value)} characters)"
        case Mapping():
            return {name: _cut(item, limit) for name, item in value.items()}
        case Sequence() if not isinstance(value, str):
            return [_cut(item, limit) for item in value]
        case _:
            return value
