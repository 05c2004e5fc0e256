"""A run in hand: its steps so far, and what the next transaction will write of it."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

from minion_audit import Activity

from minion_gateway.agents.domain import ResolvedAgent, ToolEffect
from minion_gateway.inference.domain import ChatMessage
from minion_gateway.runs.behaviours import Behaviour, behaviour_of
from minion_gateway.runs.changes import (
    AttemptBegin,
    AttemptEnd,
    AttemptState,
    Change,
    Charge,
    Ending,
    Fence,
    StepEnd,
    Totals,
)
from minion_gateway.runs.domain import (
    BeginResult,
    History,
    LeasedRun,
    Run,
    ShownSummary,
    Step,
    StepKind,
    StepResult,
    StepState,
    TokenUsage,
    ToolIntent,
)
from minion_gateway.runs.events import RunLog
from minion_gateway.runs.happenings import Numbered, Payload
from minion_gateway.runs.timing import RunTime


class Turn:
    """What one driver knows of its run. It is staged here and written by the engine, one change at a time."""

    def __init__(
        self,
        run: LeasedRun,
        agent: ResolvedAgent,
        steps: tuple[Step, ...],
        history: History,
        log: RunLog,
        *,
        deadline: float,
        fresh_until: float,
    ) -> None:
        self.run = run
        self.agent = agent
        self.history = history
        self.log = log
        self.behaviour: Behaviour = behaviour_of(agent.behavior_type)
        self.time = RunTime()
        # Both by the event loop's clock. `fresh_until` is when the lease may have run out, unless it was renewed.
        self.deadline = deadline
        self.fresh_until = fresh_until
        # Set once the last transaction is on its way: from then on its answer alone says whose run it is.
        self.ending = False
        self.context: tuple[ChatMessage, ...] | None = None
        self.summary: ShownSummary | None = None
        # What the session's messages take, as far as it is known that the context holds them all.
        self.session_tokens: int | None = None
        # What embedding the user's message has cost, until the begin step is done: one that is tried again finds the
        # vector in memory.
        self.embedding: Charge | None = None
        self.begun: BeginResult | None = next((s.result for s in steps if isinstance(s.result, BeginResult)), None)
        self.reserved: dict[int, int] = {}
        self.asked_at = run.create_time
        self.called_at: dict[int, datetime] = {}
        self._steps = list(steps)
        self._version = run.version
        self._usage, self._cost, self._unpriced = run.usage, run.cost_nanos, run.unpriced_steps
        # What stands in the database, as far as it was acknowledged.
        self._standing = (steps, self._usage, self._cost, self._unpriced)
        self._ended: list[StepEnd] = []
        self._new: list[Step] = []
        self._attempts_ended: list[AttemptEnd] = []
        self._attempts_begun: list[AttemptBegin] = []
        self._charges: list[Charge] = []
        self._audit: list[Activity] = []

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, in order."""
        return tuple(self._steps)

    def open(self, kind: StepKind | None = None) -> list[Step]:
        """Returns the steps that are STARTED, of one kind or of all."""
        return [s for s in self._steps if s.state is StepState.STARTED and kind in {None, s.kind}]

    @property
    def usage(self) -> TokenUsage:
        """The tokens of the steps that ended."""
        return self._usage

    @property
    def cost_nanos(self) -> int | None:
        """The cost of the steps that ended; None where one's isn't known."""
        return None if self._unpriced else self._cost

    def effect(self, intent: ToolIntent) -> ToolEffect:
        """Returns what calling the tool does; a call of no tool, with no arguments, or not approved, does nothing."""
        tool = self.agent.tool(intent.name)
        if tool is None or intent.arguments is None or tool.needs_approval:
            return ToolEffect.READ_ONLY
        return tool.effect

    def show(
        self, context: tuple[ChatMessage, ...], summary: ShownSummary | None, *, tokens: int, is_all: bool
    ) -> None:
        """Takes what the model is to be shown of the session."""
        self.context = context
        self.summary = summary
        self.session_tokens = tokens if is_all else None

    def begin(self, kind: StepKind, intent: ToolIntent | None = None) -> Step:
        """Stages the intent of a next step."""
        step = Step(len(self._steps) + 1, kind, intent=intent)
        self._steps.append(step)
        self._new.append(step)
        return step

    def end(self, step: Step, state: StepState, result: StepResult = None) -> None:
        """Stages the end of a step."""
        self._steps[step.sequence - 1] = replace(step, state=state, result=result)
        self._ended.append(StepEnd(step.sequence, state, result))

    def begin_attempt(self, attempt: AttemptBegin) -> Step:
        """Stages an attempt at a model, and returns its step at that attempt."""
        step = replace(self._steps[attempt.step_sequence - 1], attempt=attempt.attempt)
        self._steps[attempt.step_sequence - 1] = step
        self._attempts_begun.append(attempt)
        self.reserved[step.sequence] = attempt.maximum_input
        return step

    def end_attempt(
        self, step: Step, state: AttemptState, *, cost_nanos: int | None = None, reason: str | None = None
    ) -> None:
        """Stages what became of a step's attempt."""
        self._attempts_ended.append(AttemptEnd(step.sequence, step.attempt, state, cost_nanos, reason))

    def charge(self, charge: Charge) -> None:
        """Stages a line of the bill; a model's tokens count for the run, an embedding's cost alone does."""
        if charge.kind == "llm":
            self._usage += charge.usage
        if charge.cost_nanos is None:
            self._unpriced += 1
        else:
            self._cost += charge.cost_nanos
        if charge.cost_nanos is None or charge.cost_nanos or charge.kind == "llm":
            self._charges.append(charge)

    def audit(self, activity: Activity) -> None:
        """Stages an audit row."""
        self._audit.append(activity)

    def tell(self, payload: Payload) -> None:
        """Tells the watchers, once it is committed."""
        self.log.add(payload)

    def change(self, events: list[Numbered]) -> tuple[Fence, Change]:
        """Takes what was staged, for one transaction that also writes these events."""
        change = Change(
            totals=Totals(len(self._steps), self._usage, self._cost, self._unpriced),
            principal=self.run.principal,
            ended=tuple(self._ended),
            begun=tuple(self._new),
            attempts_ended=tuple(self._attempts_ended),
            attempts_begun=tuple(self._attempts_begun),
            charges=tuple(self._charges),
            events=tuple(events),
            audit=tuple(self._audit),
        )
        for staged in (
            self._ended,
            self._new,
            self._attempts_ended,
            self._attempts_begun,
            self._charges,
            self._audit,
        ):
            cast("list[object]", staged).clear()
        fence = Fence(self.run.tenant_id, self.run.run_id, self.run.epoch, self._version, self.log.last)
        self._version += 1
        return fence, change

    def written(self) -> None:
        """Says that the last change stands."""
        self._standing = (tuple(self._steps), self._usage, self._cost, self._unpriced)

    def refused(self, events: list[Numbered]) -> None:
        """Goes back to what stands: the database refused the last change, with these events, for what it is."""
        steps, self._usage, self._cost, self._unpriced = self._standing
        self._steps = list(steps)
        self._version -= 1
        self.log.unnumber(len(events))

    def ended_run(self, ending: Ending, time: datetime) -> Run:
        """Returns the run as its readers see it from now on."""
        run = self.run
        return Run(
            run_id=run.run_id,
            session_id=run.session_id,
            agent_id=run.agent_id,
            agent_revision=self.agent.revision,
            user_id=run.user_id,
            state=ending.state,
            answer=ending.answer,
            error=ending.error,
            usage=self._usage,
            cost_nanos=self.cost_nanos,
            step_count=len(self._steps),
            recovery_count=run.recovery_count,
            last_event_sequence=self.log.last,
            trace_id=run.trace_id,
            metadata=run.metadata,
            create_time=run.create_time,
            end_time=time if ending.state.is_terminal else None,
        )


def now() -> datetime:
    """The time of an audit row's beginning; no decision hangs on it."""
    return datetime.now(UTC)
