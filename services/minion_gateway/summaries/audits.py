"""The audit rows of summaries: one a question to a model."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from minion_audit import Activity, ActivityKind, ActivityStatus, clipped, error_fields
from uuid_utils.compat import uuid7

from minion_gateway.summaries.domain import Asked, Job, Plan, SummaryResult


def written(job: Job, asked: Asked, result: SummaryResult) -> Activity:
    """A summary that a model wrote."""
    return Activity(
        kind=ActivityKind.LLM_CALL,
        status=ActivityStatus.SUCCEEDED,
        name=result.model,
        output=clipped({"text": result.text, "finish_reason": result.finish_reason}),
        input_tokens=result.usage.input_tokens,
        output_tokens=result.usage.output_tokens,
        cached_tokens=result.usage.cached_tokens,
        reasoning_tokens=result.usage.reasoning_tokens,
        cost_nanos=result.cost_nanos,
        **_shared(job, asked, result.last_sequence),
    )


def failed(job: Job, asked: Asked, plan: Plan, model: str, reason: str, message: str) -> Activity:
    """A question that brought none."""
    return Activity(
        kind=ActivityKind.LLM_CALL,
        status=ActivityStatus.FAILED,
        name=model,
        **error_fields(reason, message),
        **_shared(job, asked, plan.last_sequence),
    )


def _shared(job: Job, asked: Asked, last_sequence: int) -> dict[str, Any]:
    elapsed = (datetime.now(UTC) - asked.time).total_seconds()
    return {
        "activity_id": UUID(int=uuid7().int),
        "start_time": asked.time,
        "nanoseconds": max(0, int(elapsed * 1e9)),
        "agent_id": job.agent.agent_id,
        "agent_revision": job.agent.revision,
        "session_id": job.session_id,
        "run_id": job.run_id,
        "step_sequence": job.step,
        "user_id": job.user_id,
        # What was said stands in the session; here, how far it was summarized.
        "input": {"summarized_up_to": last_sequence},
        "trace_id": job.trace_id,
        "span_id": job.span_id,
        "metadata": {"attempt": asked.attempt, "purpose": "summary"},
    }
