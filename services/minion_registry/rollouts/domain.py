"""What a rollout is, how it may move, and what it is judged by."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from minion_errors import Aborted, FailedPrecondition, NotFound, Violations

from minion_registry.agents.domain import Agent, AgentStatus

# A share of the sessions is counted in hundredths of a percent.
WHOLE: Final = 10_000
_NANOS_A_DOLLAR: Final = 1_000_000_000
# A check may take one part in so many of the time, so that the figures of long rollouts aren't added up all day; but a
# candidate that fails is found out within a minute.
_PARTS: Final = 20
_LONGEST_PAUSE: Final = timedelta(seconds=30)
# A candidate that nobody can judge takes sessions for so long, and no longer.
LONGEST_BLIND: Final = timedelta(minutes=10)


class RolloutStatus(enum.Enum):
    """How a rollout stands: running → promoted, running → aborted."""

    RUNNING = "running"
    PROMOTED = "promoted"  # terminal
    ABORTED = "aborted"  # terminal


class RolloutEvidence(enum.Enum):
    """What a promotion asks for."""

    EVALUATION = "evaluation"
    NONE = "none"


class RolloutGuardrail(enum.Enum):
    """What makes a rollout abort by itself."""

    ERROR_RATE = "error_rate"
    LATENCY = "latency"
    COST = "cost"
    FEEDBACK = "feedback"


class Mover(enum.Enum):
    """Who moved a rollout, as the audit tells."""

    CALLER = "caller"
    SCHEDULE = "schedule"
    GUARDRAIL = "guardrail"
    BLIND = "blind"  # nobody could say for too long whether the guardrails hold


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """A share that the candidate takes; with a duration the next step begins by itself."""

    basis_points: int
    duration: timedelta | None = None


@dataclass(frozen=True, slots=True)
class RolloutGuardrails:
    """Limits that the candidate keeps to, judged once `min_runs` of its runs have ended; None is not looked at."""

    min_runs: int
    max_error_rate: float | None = None
    max_p95_duration: timedelta | None = None
    max_mean_cost_nanos: int | None = None
    max_negative_feedback_rate: float | None = None

    @property
    def limits_anything(self) -> bool:
        """Whether any limit is set."""
        return any(
            limit is not None
            for limit in (
                self.max_error_rate,
                self.max_p95_duration,
                self.max_mean_cost_nanos,
                self.max_negative_feedback_rate,
            )
        )

    def check_available(self) -> None:
        """Raises FailedPrecondition (ROLLOUT_GUARDRAIL_UNAVAILABLE) where no figure is kept for a limit."""
        if self.max_negative_feedback_rate is not None:
            raise FailedPrecondition(
                "The activity service keeps no feedback yet.",
                reason="ROLLOUT_GUARDRAIL_UNAVAILABLE",
                metadata={"guardrail": RolloutGuardrail.FEEDBACK.name},
            )


@dataclass(frozen=True, slots=True)
class RevisionFigures:
    """What a revision did since its rollout started. `p95_duration` is None where no run has a duration."""

    run_count: int = 0
    failed_count: int = 0
    error_rate: float = 0.0
    p95_duration: timedelta | None = None
    mean_cost_nanos: int = 0


@dataclass(frozen=True, slots=True)
class RolloutCheck:
    """What a rollout was judged by, or with `fault_reason` why it couldn't be, and since when it can't."""

    check_time: datetime
    candidate: RevisionFigures = RevisionFigures()
    baseline: RevisionFigures = RevisionFigures()
    fault_reason: str = ""
    blind_since: datetime | None = None

    @classmethod
    def blind(cls, now: datetime, fault_reason: str, last: "RolloutCheck | None") -> "RolloutCheck":
        """A check without figures, after the last one."""
        since = last.blind_since if last is not None and last.blind_since is not None else now
        return cls(now, fault_reason=fault_reason, blind_since=since)

    @property
    def is_first_blind(self) -> bool:
        """Whether figures are missing since this very check."""
        return self.blind_since == self.check_time


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit that the candidate broke, and how, in words."""

    guardrail: RolloutGuardrail
    reason: str


@dataclass(frozen=True, slots=True)
class Move:
    """What a check asks for: the next step, an end (`given_up` says why, where no guardrail does), or nothing."""

    step_index: int | None = None
    breach: Breach | None = None
    given_up: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a look at a rollout. `check` is None where it had ended, `moved_by` where it stays as it is."""

    check: RolloutCheck | None = None
    moved_by: Mover | None = None
    sees_again: bool = False


@dataclass(frozen=True, slots=True)
class NewRollout:
    """A rollout that is to be."""

    rollout_id: UUID
    agent_id: UUID
    candidate_revision: int
    steps: tuple[RolloutStep, ...]
    guardrails: RolloutGuardrails
    evidence: RolloutEvidence

    def check_startable(self, agent: Agent) -> None:
        """Raises FailedPrecondition (AGENT_STATUS_UNSUITABLE, ROLLOUT_CANDIDATE_LIVE) unless it suits the agent."""
        if agent.status is not AgentStatus.ACTIVE:
            raise FailedPrecondition(
                "Only an active agent can have a rollout.",
                reason="AGENT_STATUS_UNSUITABLE",
                metadata={"agent_id": str(agent.agent_id), "status": agent.status.name},
            )
        if self.candidate_revision == agent.revision:
            raise FailedPrecondition(
                "The candidate is the live revision.",
                reason="ROLLOUT_CANDIDATE_LIVE",
                metadata={"agent_id": str(agent.agent_id), "revision": str(agent.revision)},
            )


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout as stored. `version` counts every change, its checks left out."""

    rollout_id: UUID
    agent_id: UUID
    candidate_revision: int
    baseline_revision: int
    steps: tuple[RolloutStep, ...]
    step_index: int
    basis_points: int
    guardrails: RolloutGuardrails
    evidence: RolloutEvidence
    status: RolloutStatus
    abort_reason: str
    breached_guardrail: RolloutGuardrail | None
    last_check: RolloutCheck | None
    principal: str
    version: int
    create_time: datetime
    update_time: datetime
    step_start_time: datetime
    end_time: datetime | None

    @property
    def etag(self) -> str:
        """What a caller sends back to say which version was read."""
        return str(self.version)

    def check_etag(self, etag: str) -> None:
        """Raises Aborted (ETAG_MISMATCH) when the caller read another version; the empty etag asks for no check."""
        if etag and etag != self.etag:
            raise Aborted(
                "The rollout changed since it was read.",
                reason="ETAG_MISMATCH",
                metadata={"rollout_id": str(self.rollout_id), "etag": self.etag},
            )

    def check_running(self) -> None:
        """Raises FailedPrecondition (ROLLOUT_ENDED) when it has ended."""
        if self.status is not RolloutStatus.RUNNING:
            raise FailedPrecondition(
                "The rollout has ended.",
                reason="ROLLOUT_ENDED",
                metadata={"rollout_id": str(self.rollout_id), "status": self.status.name},
            )

    def later_step(self, wanted: int | None) -> int:
        """Returns the step to go to; None means the next one. Raises InvalidArgument unless there is such a step."""
        step = self.step_index + 1 if wanted is None else wanted
        if step >= len(self.steps):
            if wanted is None:
                Violations().stop("step_index", "has no next one: the rollout is at its last step; promote or abort it")
            Violations().stop("step_index", f"must be below {len(self.steps)}, is {step}")
        if step <= self.step_index:
            Violations().stop("step_index", f"must be above {self.step_index}, where the rollout is, is {step}")
        return step

    def judge(self, check: RolloutCheck, now: datetime) -> Move:
        """Says what the figures ask for at a moment. Without figures everything stays as it is, for ten minutes."""
        if check.blind_since is not None and now >= check.blind_since + LONGEST_BLIND:
            minutes = (now - check.blind_since) // timedelta(minutes=1)
            return Move(given_up=f"There were no figures for {minutes} minutes to judge it by: {check.fault_reason}.")
        if check.fault_reason or check.candidate.run_count < self.guardrails.min_runs:
            return Move()
        breach = breached(self.guardrails, check.candidate, self.candidate_revision)
        if breach is not None:
            return Move(breach=breach)
        duration = self.steps[self.step_index].duration
        is_over = duration is not None and now >= self.step_start_time + duration
        if is_over and self.step_index + 1 < len(self.steps):
            return Move(step_index=self.step_index + 1)
        return Move()


def breached(guardrails: RolloutGuardrails, figures: RevisionFigures, revision: int) -> Breach | None:
    """Returns the first limit that the figures of enough runs break: errors, then latency, then cost."""
    rate, slowest = guardrails.max_error_rate, guardrails.max_p95_duration
    if rate is not None and figures.error_rate > rate:
        return Breach(
            RolloutGuardrail.ERROR_RATE,
            f"{figures.failed_count} of {figures.run_count} runs of revision {revision} failed:"
            f" {figures.error_rate:.2%}, the limit is {rate:.2%}.",
        )
    if slowest is not None and figures.p95_duration is not None and figures.p95_duration > slowest:
        return Breach(
            RolloutGuardrail.LATENCY,
            f"The 95th percentile of {figures.run_count} runs of revision {revision} is"
            f" {figures.p95_duration.total_seconds():.3f} s, the limit is {slowest.total_seconds():.3f} s.",
        )
    cost = guardrails.max_mean_cost_nanos
    if cost is not None and figures.mean_cost_nanos > cost:
        return Breach(
            RolloutGuardrail.COST,
            f"A run of revision {revision} costs ${figures.mean_cost_nanos / _NANOS_A_DOLLAR:.9f} in the mean of"
            f" {figures.run_count}, the limit is ${cost / _NANOS_A_DOLLAR:.9f}.",
        )
    return None


def pause_after(took: timedelta, every: timedelta) -> timedelta:
    """Returns how long after a check that took so long the next one comes: as wanted, or later where it is dear."""
    return max(every, min(took * _PARTS, _LONGEST_PAUSE))


class EvidenceCause(enum.Enum):
    """Why there is no evidence for a promotion."""

    FAILED = "The candidate's evaluation did not pass."
    MISSING = "The candidate has not been evaluated."
    UNSUPPORTED = "The activity service has no evaluations."
    UNREACHABLE = "The activity service could not be asked for an evaluation."


@dataclass(frozen=True, slots=True)
class Gate:
    """What an evaluation says of a revision; `cause` is None where it passed."""

    cause: EvidenceCause | None
    reasons: tuple[str, ...] = ()
    evaluation_id: str = ""

    def check_passed(self, rollout: Rollout) -> None:
        """Raises FailedPrecondition (ROLLOUT_EVIDENCE_MISSING) unless the revision passed."""
        if self.cause is None:
            return
        # Metadata goes into headers, which are small.
        why = {"reasons": "; ".join(self.reasons)[:500]} if self.reasons else {}
        raise FailedPrecondition(
            self.cause.value,
            reason="ROLLOUT_EVIDENCE_MISSING",
            metadata={
                "rollout_id": str(rollout.rollout_id),
                "candidate_revision": str(rollout.candidate_revision),
                "cause": self.cause.name,
                **why,
            },
        )


@dataclass(frozen=True, slots=True)
class RolloutFilter:
    """Which rollouts a list holds; None matches all."""

    agent_id: UUID | None = None
    status: RolloutStatus | None = None


@dataclass(frozen=True, slots=True)
class RolloutAssignment:
    """What the gateway needs to know of a running rollout: the share, what it is drawn by, and the candidate."""

    rollout_id: UUID
    basis_points: int
    candidate: Agent

    @property
    def salt(self) -> str:
        """What sets this rollout's choice of sessions apart from others'."""
        return str(self.rollout_id)


def not_found(rollout_id: UUID) -> NotFound:
    """Builds the error for a rollout that the tenant doesn't have."""
    return NotFound("There is no such rollout.", reason="ROLLOUT_NOT_FOUND", metadata={"rollout_id": str(rollout_id)})


def running(agent_id: UUID, rollout_id: UUID | None) -> FailedPrecondition:
    """Builds the error for an agent that has a rollout under way."""
    named = {} if rollout_id is None else {"rollout_id": str(rollout_id)}
    return FailedPrecondition(
        "A rollout of the agent is under way.",
        reason="ROLLOUT_RUNNING",
        metadata={"agent_id": str(agent_id), **named},
    )


def asked_for(rollout: Rollout) -> Mapping[str, Any]:
    """Says for the audit what a promotion of the rollout asks for."""
    if rollout.evidence is RolloutEvidence.NONE:
        return {"asked_for": "nothing"}
    return {"asked_for": "a passing evaluation of the candidate"}


def told(rollout: Rollout, by: Mover) -> Mapping[str, Any]:
    """Writes down for the audit what a rollout was moved by, and what was known of it."""
    check = rollout.last_check
    return {
        "rollout_id": str(rollout.rollout_id),
        "candidate_revision": rollout.candidate_revision,
        "baseline_revision": rollout.baseline_revision,
        "status": rollout.status.name,
        "step_index": rollout.step_index,
        "basis_points": rollout.basis_points,
        "by": by.name,
        "evidence": rollout.evidence.name,
        "guardrail": None if rollout.breached_guardrail is None else rollout.breached_guardrail.name,
        "reason": rollout.abort_reason,
        "figures": None
        if check is None
        else {
            "check_time": check.check_time.isoformat(),
            "candidate": _figures(check.candidate),
            "baseline": _figures(check.baseline),
            "fault_reason": check.fault_reason,
            "blind_since": None if check.blind_since is None else check.blind_since.isoformat(),
        },
    }


def _figures(figures: RevisionFigures) -> Mapping[str, Any]:
    return {
        "run_count": figures.run_count,
        "failed_count": figures.failed_count,
        "error_rate": figures.error_rate,
        "p95_seconds": None if figures.p95_duration is None else figures.p95_duration.total_seconds(),
        "mean_cost_nanos": figures.mean_cost_nanos,
    }
