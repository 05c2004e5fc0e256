"""The rules of rollouts, with nothing else running."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from minion_errors import FailedPrecondition
from minion_registry.rollouts.domain import (
    Breach,
    EvidenceCause,
    Gate,
    Move,
    RevisionFigures,
    Rollout,
    RolloutCheck,
    RolloutEvidence,
    RolloutGuardrail,
    RolloutGuardrails,
    RolloutStatus,
    RolloutStep,
    breached,
    pause_after,
)

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LIMITS = RolloutGuardrails(
    min_runs=20, max_error_rate=0.05, max_p95_duration=timedelta(seconds=2), max_mean_cost_nanos=1_000_000
)
GOOD = RevisionFigures(
    run_count=20, failed_count=1, error_rate=0.05, p95_duration=timedelta(seconds=2), mean_cost_nanos=1_000_000
)
ROLLOUT = Rollout(
    rollout_id=UUID(int=1),
    agent_id=UUID(int=2),
    candidate_revision=3,
    baseline_revision=2,
    steps=(RolloutStep(100, MINUTE), RolloutStep(1_000), RolloutStep(10_000, MINUTE)),
    step_index=0,
    basis_points=100,
    guardrails=LIMITS,
    evidence=RolloutEvidence.EVALUATION,
    status=RolloutStatus.RUNNING,
    abort_reason="",
    breached_guardrail=None,
    last_check=None,
    principal="key:1",
    version=1,
    create_time=NOON,
    update_time=NOON,
    step_start_time=NOON,
    end_time=None,
)


def test_a_limit_that_is_met_is_kept() -> None:
    assert breached(LIMITS, GOOD, 3) is None


@pytest.mark.parametrize(
    ("figures", "guardrail", "reason"),
    [
        (
            replace(GOOD, failed_count=12, error_rate=0.6),
            RolloutGuardrail.ERROR_RATE,
            "12 of 20 runs of revision 3 failed: 60.00%, the limit is 5.00%.",
        ),
        (
            replace(GOOD, p95_duration=timedelta(seconds=2.001)),
            RolloutGuardrail.LATENCY,
            "The 95th percentile of 20 runs of revision 3 is 2.001 s, the limit is 2.000 s.",
        ),
        (
            replace(GOOD, mean_cost_nanos=1_000_001),
            RolloutGuardrail.COST,
            "A run of revision 3 costs $0.001000001 in the mean of 20, the limit is $0.001000000.",
        ),
    ],
)
def test_a_broken_limit_is_told_with_its_figures(
    figures: RevisionFigures, guardrail: RolloutGuardrail, reason: str
) -> None:
    assert breached(LIMITS, figures, 3) == Breach(guardrail, reason)


def test_a_limit_that_is_not_set_is_not_looked_at() -> None:
    bad = RevisionFigures(20, 20, 1.0, timedelta(hours=1), 10**15)
    assert breached(RolloutGuardrails(min_runs=1), bad, 3) is None


@pytest.mark.parametrize(
    ("check", "after", "move"),
    [
        (RolloutCheck(NOON, GOOD), MINUTE, Move(step_index=1)),
        (RolloutCheck(NOON, GOOD), MINUTE - timedelta(microseconds=1), Move()),
        # Too few runs to go by, for better or worse.
        (RolloutCheck(NOON, replace(GOOD, run_count=19)), MINUTE, Move()),
        (RolloutCheck(NOON, replace(GOOD, run_count=19, error_rate=1.0)), MINUTE, Move()),
        # No figures: nothing begins by itself, and nothing ends.
        (RolloutCheck(NOON, GOOD, fault_reason="PEER_UNAVAILABLE"), MINUTE, Move()),
    ],
)
def test_steps_begin_by_themselves_when_figures_say_so(check: RolloutCheck, after: timedelta, move: Move) -> None:
    assert ROLLOUT.judge(check, NOON + after) == move


def test_without_figures_it_goes_on_for_ten_minutes_and_no_longer() -> None:
    first = RolloutCheck.blind(NOON, "PEER_UNAVAILABLE", None)
    assert (first.is_first_blind, ROLLOUT.judge(first, NOON)) == (True, Move())
    for seconds in (5, 599):
        now = NOON + timedelta(seconds=seconds)
        later = RolloutCheck.blind(now, "PEER_UNAVAILABLE", first)
        assert (later.is_first_blind, ROLLOUT.judge(later, now)) == (False, Move())
    last = RolloutCheck.blind(NOON + 10 * MINUTE, "PEER_TIMEOUT", first)
    why = "There were no figures for 10 minutes to judge it by: PEER_TIMEOUT."
    assert ROLLOUT.judge(last, last.check_time) == Move(given_up=why)
    # Figures begin it anew.
    again = RolloutCheck.blind(NOON + 10 * MINUTE, "PEER_UNAVAILABLE", RolloutCheck(NOON + 9 * MINUTE, GOOD))
    assert (again.is_first_blind, ROLLOUT.judge(again, again.check_time)) == (True, Move())


def test_a_breach_comes_before_the_next_step() -> None:
    check = RolloutCheck(NOON, replace(GOOD, error_rate=0.5, failed_count=10))
    move = ROLLOUT.judge(check, NOON + MINUTE)
    assert move.breach is not None
    assert move.step_index is None


@pytest.mark.parametrize("step_index", [1, 2])
def test_a_step_without_a_duration_and_the_last_one_wait(step_index: int) -> None:
    rollout = replace(ROLLOUT, step_index=step_index)
    assert rollout.judge(RolloutCheck(NOON, GOOD), NOON + timedelta(days=1)) == Move()


@pytest.mark.parametrize(("took", "pause"), [(0.01, 5), (0.25, 5), (0.3, 6), (1.5, 30), (10, 30)])
def test_a_dear_check_comes_less_often_and_within_a_minute(took: float, pause: float) -> None:
    assert pause_after(timedelta(seconds=took), timedelta(seconds=5)) == timedelta(seconds=pause)


@pytest.mark.parametrize("cause", EvidenceCause)
def test_without_evidence_nothing_is_promoted(cause: EvidenceCause) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        Gate(cause, ("too slow",)).check_passed(ROLLOUT)
    assert refused.value.reason == "ROLLOUT_EVIDENCE_MISSING"
    assert (refused.value.metadata["cause"], refused.value.metadata["reasons"]) == (cause.name, "too slow")


def test_evidence_lets_through() -> None:
    Gate(None).check_passed(ROLLOUT)
