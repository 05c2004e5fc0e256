"""What one transaction of the engine writes: results with the next intents, never one without the other."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from minion_audit import Activity

from minion_gateway.runs.domain import RunError, RunState, Step, StepResult, StepState, TokenUsage
from minion_gateway.runs.happenings import Numbered


class AttemptState(enum.Enum):
    """What became of an attempt at a model."""

    DONE = "DONE"
    FAILED = "FAILED"
    LOST = "LOST"


@dataclass(frozen=True, slots=True)
class StepEnd:
    """A step that ended, with what it brought."""

    sequence: int
    state: StepState
    result: StepResult = None


@dataclass(frozen=True, slots=True)
class AttemptBegin:
    """An attempt at a model that is about to be made, with the most that it can take.

    `worst_case_nanos` is None where the model's price isn't known.
    """

    step_sequence: int
    attempt: int
    model: str
    worst_case_nanos: int | None
    maximum_input: int
    maximum_output: int


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """What became of an attempt. `cost_nanos` is None where it isn't known: then the worst case counts."""

    step_sequence: int
    attempt: int
    state: AttemptState
    cost_nanos: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Charge:
    """One line of the tenant's bill. `cost_nanos` is None where the price isn't known."""

    step_sequence: int
    kind: str
    name: str
    usage: TokenUsage
    cost_nanos: int | None

    def row(self) -> dict[str, object]:
        """Its stored form."""
        return {
            "step_sequence": self.step_sequence,
            "kind": self.kind,
            "name": self.name,
            "input_tokens": self.usage.input_tokens,
            "output_tokens": self.usage.output_tokens,
            "cached_tokens": self.usage.cached_tokens,
            "reasoning_tokens": self.usage.reasoning_tokens,
            "cost_nanos": self.cost_nanos,
        }


@dataclass(frozen=True, slots=True)
class Totals:
    """A run's own sums after a change."""

    steps: int
    usage: TokenUsage
    cost_nanos: int
    unpriced_steps: int


@dataclass(frozen=True, slots=True)
class Change:
    """One step forward of a run; its audit rows are done by `principal`."""

    totals: Totals
    principal: str
    ended: Sequence[StepEnd] = ()
    begun: Sequence[Step] = ()
    attempts_ended: Sequence[AttemptEnd] = ()
    attempts_begun: Sequence[AttemptBegin] = ()
    charges: Sequence[Charge] = ()
    events: Sequence[Numbered] = ()
    audit: Sequence[Activity] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run leaves WORKING."""

    state: RunState
    answer: str = ""
    error: RunError | None = None


@dataclass(frozen=True, slots=True)
class Fence:
    """What a write must find unchanged: the lease's epoch and the run's version.

    `last_event` is the sequence of the run's last event once the write is done; the one before the write's own events
    must be there too.
    """

    tenant_id: UUID
    run_id: UUID
    epoch: int
    version: int
    last_event: int


@dataclass(frozen=True, slots=True)
class EndedRun:
    """When a run left WORKING, and the queued run that took its session.

    `asked_at` is when that was asked for, by the loop's clock: the next run's lease holds at least from then on.
    """

    time: datetime
    next_run: UUID | None
    asked_at: float = 0.0
