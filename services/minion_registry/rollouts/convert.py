"""Between the contract's rollouts and ours."""

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from minion.registry.v1 import agent_pb2, rollout_pb2
from minion.registry.v1 import rollout_service_pb2 as pb
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key
from uuid_utils.compat import uuid7

from minion_registry import requests
from minion_registry.agents.convert import agent_to_proto
from minion_registry.rollouts.domain import (
    WHOLE,
    NewRollout,
    RevisionFigures,
    Rollout,
    RolloutAssignment,
    RolloutCheck,
    RolloutEvidence,
    RolloutFilter,
    RolloutGuardrail,
    RolloutGuardrails,
    RolloutStatus,
    RolloutStep,
)

_MOST_STEPS = 20
_SHORTEST_STEP, _LONGEST_STEP = timedelta(seconds=1), timedelta(days=30)
_DEFAULT_RUNS, _MOST_RUNS = 20, 100_000
_SHORTEST_RUN, _LONGEST_RUN = timedelta(milliseconds=1), timedelta(hours=1)
_MOST_NANOS = 10**15
_LONGEST_REASON = 500

_STATUSES: Mapping[rollout_pb2.RolloutStatus.ValueType, RolloutStatus] = {
    rollout_pb2.ROLLOUT_STATUS_RUNNING: RolloutStatus.RUNNING,
    rollout_pb2.ROLLOUT_STATUS_PROMOTED: RolloutStatus.PROMOTED,
    rollout_pb2.ROLLOUT_STATUS_ABORTED: RolloutStatus.ABORTED,
}
_STATUSES_TO_PROTO = {status: value for value, status in _STATUSES.items()}
_EVIDENCE: Mapping[rollout_pb2.RolloutEvidence.ValueType, RolloutEvidence] = {
    rollout_pb2.ROLLOUT_EVIDENCE_UNSPECIFIED: RolloutEvidence.EVALUATION,
    rollout_pb2.ROLLOUT_EVIDENCE_EVALUATION: RolloutEvidence.EVALUATION,
    rollout_pb2.ROLLOUT_EVIDENCE_NONE: RolloutEvidence.NONE,
}
_EVIDENCE_TO_PROTO: Mapping[RolloutEvidence, rollout_pb2.RolloutEvidence.ValueType] = {
    RolloutEvidence.EVALUATION: rollout_pb2.ROLLOUT_EVIDENCE_EVALUATION,
    RolloutEvidence.NONE: rollout_pb2.ROLLOUT_EVIDENCE_NONE,
}
_GUARDRAILS_TO_PROTO: Mapping[RolloutGuardrail | None, rollout_pb2.RolloutGuardrail.ValueType] = {
    None: rollout_pb2.ROLLOUT_GUARDRAIL_UNSPECIFIED,
    RolloutGuardrail.ERROR_RATE: rollout_pb2.ROLLOUT_GUARDRAIL_ERROR_RATE,
    RolloutGuardrail.LATENCY: rollout_pb2.ROLLOUT_GUARDRAIL_LATENCY,
    RolloutGuardrail.COST: rollout_pb2.ROLLOUT_GUARDRAIL_COST,
    RolloutGuardrail.FEEDBACK: rollout_pb2.ROLLOUT_GUARDRAIL_FEEDBACK,
}


def start_from_proto(request: pb.StartRolloutRequest) -> tuple[NewRollout, Key | None]:
    """Reads a rollout that is to be. Raises InvalidArgument with all faults."""
    violations = Violations()
    rollout = request.rollout
    if rollout.candidate_revision < 1:
        violations.add("rollout.candidate_revision", f"must be 1 or more, is {rollout.candidate_revision}")
    evidence = _EVIDENCE.get(rollout.evidence)
    if evidence is None:
        violations.add("rollout.evidence", "is no known evidence")
    new = NewRollout(
        rollout_id=requests.identifier_or_new(violations, "rollout.rollout_id", rollout.rollout_id, uuid7()),
        agent_id=violations.identifier("rollout.agent_id", rollout.agent_id),
        candidate_revision=rollout.candidate_revision,
        steps=_steps(violations, rollout),
        guardrails=_guardrails(violations, rollout),
        evidence=evidence or RolloutEvidence.EVALUATION,
    )
    key = requests.key(violations, request)
    violations.raise_if_any()
    return new, key


def get_from_proto(request: pb.GetRolloutRequest) -> UUID:
    """Reads which rollout is meant. Raises InvalidArgument."""
    violations = Violations()
    rollout_id = violations.identifier("rollout_id", request.rollout_id)
    violations.raise_if_any()
    return rollout_id


def list_from_proto(request: pb.ListRolloutsRequest) -> tuple[RolloutFilter, int, str]:
    """Reads the filters, the page size and the token. Raises InvalidArgument with all faults."""
    violations = Violations()
    status = _STATUSES.get(request.status)
    if request.status and status is None:
        violations.add("status", "is no known status")
    selected = RolloutFilter(violations.optional_identifier("agent_id", request.agent_id), status)
    size = requests.page_size(violations, request.page_size)
    violations.raise_if_any()
    return selected, size, request.page_token


def advance_from_proto(request: pb.AdvanceRolloutRequest) -> tuple[UUID, int | None, str, Key | None]:
    """Reads the rollout, the step, the etag and the key. Raises InvalidArgument with all faults."""
    violations = Violations()
    rollout_id = violations.identifier("rollout_id", request.rollout_id)
    key = requests.key(violations, request)
    violations.raise_if_any()
    return rollout_id, request.step_index if request.HasField("step_index") else None, request.etag, key


def promote_from_proto(request: pb.PromoteRolloutRequest) -> tuple[UUID, str, Key | None]:
    """Reads the rollout, the etag and the key. Raises InvalidArgument with all faults."""
    violations = Violations()
    rollout_id = violations.identifier("rollout_id", request.rollout_id)
    key = requests.key(violations, request)
    violations.raise_if_any()
    return rollout_id, request.etag, key


def abort_from_proto(request: pb.AbortRolloutRequest) -> tuple[UUID, str, str, Key | None]:
    """Reads the rollout, the reason, the etag and the key. Raises InvalidArgument with all faults."""
    violations = Violations()
    rollout_id = violations.identifier("rollout_id", request.rollout_id)
    reason = violations.length("reason", request.reason, minimum=1, maximum=_LONGEST_REASON)
    key = requests.key(violations, request)
    violations.raise_if_any()
    return rollout_id, reason, request.etag, key


def rollout_to_proto(rollout: Rollout) -> rollout_pb2.Rollout:
    """Writes a rollout."""
    return rollout_pb2.Rollout(
        rollout_id=str(rollout.rollout_id),
        agent_id=str(rollout.agent_id),
        candidate_revision=rollout.candidate_revision,
        baseline_revision=rollout.baseline_revision,
        steps=[
            rollout_pb2.RolloutStep(basis_points=step.basis_points, duration=_duration(step.duration))
            for step in rollout.steps
        ],
        step_index=rollout.step_index,
        basis_points=rollout.basis_points,
        guardrails=rollout_pb2.RolloutGuardrails(
            min_runs=rollout.guardrails.min_runs,
            max_error_rate=rollout.guardrails.max_error_rate,
            max_p95_duration=_duration(rollout.guardrails.max_p95_duration),
            max_mean_cost_nanos=rollout.guardrails.max_mean_cost_nanos,
            max_negative_feedback_rate=rollout.guardrails.max_negative_feedback_rate,
        ),
        evidence=_EVIDENCE_TO_PROTO[rollout.evidence],
        status=_STATUSES_TO_PROTO[rollout.status],
        abort_reason=rollout.abort_reason,
        breached_guardrail=_GUARDRAILS_TO_PROTO[rollout.breached_guardrail],
        last_check=None if rollout.last_check is None else _check_to_proto(rollout.last_check),
        principal=rollout.principal,
        etag=rollout.etag,
        create_time=wire.to_timestamp(rollout.create_time),
        update_time=wire.to_timestamp(rollout.update_time),
        step_start_time=wire.to_timestamp(rollout.step_start_time),
        end_time=wire.to_optional_timestamp(rollout.end_time),
    )


def assignment_to_proto(assignment: RolloutAssignment) -> agent_pb2.RolloutAssignment:
    """Writes who gets which revision."""
    return agent_pb2.RolloutAssignment(
        rollout_id=str(assignment.rollout_id),
        basis_points=assignment.basis_points,
        salt=assignment.salt,
        candidate=agent_to_proto(assignment.candidate),
    )


def _steps(violations: Violations, rollout: rollout_pb2.Rollout) -> tuple[RolloutStep, ...]:
    violations.count("rollout.steps", rollout.steps, minimum=1, maximum=_MOST_STEPS)
    steps = []
    before = 0
    for index, step in enumerate(rollout.steps):
        path = f"rollout.steps[{index}]"
        violations.between(f"{path}.basis_points", step.basis_points, minimum=1, maximum=WHOLE)
        if index and step.basis_points <= before:
            violations.add(f"{path}.basis_points", f"must be above the {before} of the step before")
        before = step.basis_points
        duration = None
        if step.HasField("duration"):
            duration = _bounded(violations, f"{path}.duration", step.duration, _SHORTEST_STEP, _LONGEST_STEP)
        steps.append(RolloutStep(step.basis_points, duration))
    return tuple(steps)


def _guardrails(violations: Violations, rollout: rollout_pb2.Rollout) -> RolloutGuardrails:
    given, path = rollout.guardrails, "rollout.guardrails"
    violations.between(f"{path}.min_runs", given.min_runs, minimum=0, maximum=_MOST_RUNS)
    violations.between(f"{path}.max_error_rate", given.max_error_rate, minimum=0, maximum=1)
    violations.between(f"{path}.max_mean_cost_nanos", given.max_mean_cost_nanos, minimum=0, maximum=_MOST_NANOS)
    violations.between(f"{path}.max_negative_feedback_rate", given.max_negative_feedback_rate, minimum=0, maximum=1)
    slowest = None
    if given.HasField("max_p95_duration"):
        slowest = _bounded(violations, f"{path}.max_p95_duration", given.max_p95_duration, _SHORTEST_RUN, _LONGEST_RUN)
    guardrails = RolloutGuardrails(
        min_runs=given.min_runs or _DEFAULT_RUNS,
        max_error_rate=given.max_error_rate if given.HasField("max_error_rate") else None,
        max_p95_duration=slowest,
        max_mean_cost_nanos=given.max_mean_cost_nanos if given.HasField("max_mean_cost_nanos") else None,
        max_negative_feedback_rate=given.max_negative_feedback_rate
        if given.HasField("max_negative_feedback_rate")
        else None,
    )
    if not guardrails.limits_anything:
        violations.add(path, "must set at least one limit")
    return guardrails


def _bounded(
    violations: Violations, field: str, duration: Duration, shortest: timedelta, longest: timedelta
) -> timedelta:
    span = wire.from_duration(duration, field, violations)
    if not shortest <= span <= longest:
        violations.add(field, f"must be between {shortest.total_seconds():g} s and {longest.total_seconds():g} s")
    return span


def _check_to_proto(check: RolloutCheck) -> rollout_pb2.RolloutCheck:
    return rollout_pb2.RolloutCheck(
        check_time=wire.to_timestamp(check.check_time),
        candidate=_figures_to_proto(check.candidate),
        baseline=_figures_to_proto(check.baseline),
        fault_reason=check.fault_reason,
    )


def _figures_to_proto(figures: RevisionFigures) -> rollout_pb2.RevisionFigures:
    return rollout_pb2.RevisionFigures(
        run_count=figures.run_count,
        error_rate=figures.error_rate,
        p95_duration=_duration(figures.p95_duration),
        mean_cost_nanos=figures.mean_cost_nanos,
    )


def _duration(span: timedelta | None) -> Duration | None:
    return None if span is None else wire.to_duration(span)
