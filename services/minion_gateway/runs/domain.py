"""What a run is: its states, its steps with what they intend and bring, its end."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from minion_errors import InvalidArgument, NotFound

QUEUE_LIMIT = 32


class RunState(enum.Enum):
    """Where a run is: A2A's task states."""

    SUBMITTED = "SUBMITTED"
    WORKING = "WORKING"
    INPUT_REQUIRED = "INPUT_REQUIRED"
    COMPLETED = "COMPLETED"  # terminal
    FAILED = "FAILED"  # terminal

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended for good."""
        return not _TRANSITIONS[self]

    def may_become(self, other: "RunState") -> bool:
        """Tells whether the move is allowed; staying is no move."""
        return other in _TRANSITIONS[self]


_TRANSITIONS: Mapping[RunState, frozenset[RunState]] = {
    RunState.SUBMITTED: frozenset({RunState.WORKING}),
    RunState.WORKING: frozenset({RunState.INPUT_REQUIRED, RunState.COMPLETED, RunState.FAILED}),
    RunState.INPUT_REQUIRED: frozenset({RunState.WORKING, RunState.FAILED}),
    RunState.COMPLETED: frozenset(),
    RunState.FAILED: frozenset(),
}


class StepKind(enum.Enum):
    """What a step does."""

    BEGIN = "begin"  # the user's message into the session; context and memories out
    LLM = "llm"
    TOOL = "tool"
    APPEND = "append"
    SUMMARY = "summary"  # after the run: see `minion_gateway.summaries`


class StepState(enum.Enum):
    """Where a step is. STARTED is the intent: from here on the effect may have happened."""

    STARTED = "STARTED"
    DONE = "DONE"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens that models took."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        return TokenUsage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a run failed or waits."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Run:
    """A run as its readers see it. `cost_nanos` is None where a step's price isn't known."""

    run_id: UUID
    session_id: UUID
    agent_id: UUID
    agent_revision: int
    user_id: str
    state: RunState
    answer: str
    error: RunError | None
    usage: TokenUsage
    cost_nanos: int | None
    step_count: int
    recovery_count: int
    last_event_sequence: int
    trace_id: str
    metadata: dict[str, Any]
    create_time: datetime
    end_time: datetime | None


@dataclass(frozen=True, slots=True)
class RunPage:
    """One page of runs."""

    runs: tuple[Run, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class NewRun:
    """A turn that a caller asks for."""

    session_id: UUID
    text: str
    queued: bool
    metadata: dict[str, Any]
    request_id: UUID | None
    digest: bytes


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What never changes about a session."""

    session_id: UUID
    agent_id: UUID
    user_id: str


@dataclass(frozen=True, slots=True)
class RequestedCall:
    """A call that the model asks for; `arguments` is None where it wrote something else than a JSON object."""

    call_id: str
    name: str
    arguments: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Recalled:
    """A memory that the model is shown; `kind` and `trust` are the memory service's names.

    `score` compares within one search alone; `similarity` is the cosine, None where only words were compared.
    """

    memory_id: str
    content: str
    score: float
    kind: str = ""
    trust: str = ""
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class ShownSummary:
    """A summary that the model is shown in place of the session's older messages."""

    summary_id: str
    first_sequence: int
    last_sequence: int
    text: str
    tokens: int
    model: str


@dataclass(frozen=True, slots=True)
class BeginResult:
    """What the begin step brought; `degraded` says why nothing was recalled where something should have been.

    `summary_sequence` is the last message of the summary that the model is shown; 0 where it is shown none.
    """

    memories: tuple[Recalled, ...] = ()
    degraded: str = ""
    message_sequence: int = 0
    summary_sequence: int = 0


@dataclass(frozen=True, slots=True)
class LlmResult:
    """What a model answered."""

    text: str
    calls: tuple[RequestedCall, ...]
    finish_reason: str
    model: str
    usage: TokenUsage
    cost_nanos: int | None
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class ToolIntent:
    """A tool that is about to be called. `arguments` is None where the model's were no JSON object."""

    call_id: str
    name: str
    arguments: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered, or why it failed. Of a large one `output` is an excerpt, and `blob_id` the whole."""

    output: Any
    is_error: bool
    nanoseconds: int
    blob_id: str = ""


StepResult = BeginResult | LlmResult | ToolResult | None


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run; `intent` is set on TOOL steps alone."""

    sequence: int
    kind: StepKind
    state: StepState = StepState.STARTED
    attempt: int = 1
    intent: ToolIntent | None = None
    result: StepResult = None

    def key(self, run_id: UUID) -> UUID:
        """The step's idempotency key."""
        return step_key(run_id, self.sequence)


@dataclass(frozen=True, slots=True)
class LeasedRun:
    """A run as its driver takes it over. `accepted` says that nobody has driven it before."""

    tenant_id: UUID
    run_id: UUID
    session_id: UUID
    agent_id: UUID
    user_id: str
    principal: str
    text: str
    metadata: dict[str, Any]
    streamed: bool
    trace_id: str
    span_id: str
    epoch: int
    create_time: datetime
    version: int = 0
    elapsed_seconds: float = 0.0
    recovery_count: int = 0
    last_event_sequence: int = 1
    usage: TokenUsage = field(default_factory=TokenUsage)
    cost_nanos: int = 0
    unpriced_steps: int = 0

    @property
    def accepted(self) -> bool:
        """Whether this is the first lease of the run."""
        return self.epoch == 1


@dataclass(frozen=True, slots=True)
class History:
    """What earlier drivers of a run left behind, besides its steps.

    `shown_from` is the first event with text of the open model step's last attempt; `memories` are those that an event
    has told of already, and `told_summary` says that one has told of a summary.
    """

    shown_from: int | None = None
    memories: tuple[Recalled, ...] | None = None
    told_summary: bool = False


def step_key(run_id: UUID, sequence: int) -> UUID:
    """The idempotency key of a step: UUIDv5 (RFC 9562, 5.5) of its number in the run's namespace."""
    return uuid5(run_id, str(sequence))


def run_not_found(run_id: UUID) -> NotFound:
    """The error for a run that isn't there, or is another tenant's."""
    return NotFound("No such run.", reason="RUN_NOT_FOUND", metadata={"run_id": str(run_id)})


def sequence_ahead(run_id: UUID, last: int) -> InvalidArgument:
    """The error for a watcher that is ahead of its run."""
    return InvalidArgument(
        "The run has no such event yet.",
        reason="SEQUENCE_AHEAD",
        metadata={"run_id": str(run_id), "last_event_sequence": str(last)},
    )
