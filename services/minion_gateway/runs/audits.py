"""The audit rows of a run: one for itself, one a model step, one a tool step."""

from datetime import datetime
from typing import Any
from uuid import UUID

from minion_audit import Activity, ActivityKind, ActivityStatus, clipped, error_fields
from uuid_utils.compat import uuid7

from minion_gateway.runs.changes import Ending
from minion_gateway.runs.domain import LlmResult, RunState, Step, StepKind, ToolIntent
from minion_gateway.runs.turn import Turn, now
from minion_gateway.tools.domain import Outcome


def model_answered(turn: Turn, step: Step, result: LlmResult) -> Activity:
    """A model step that brought an answer."""
    output: dict[str, Any] = {"text": result.text, "finish_reason": result.finish_reason}
    if result.calls:
        output["tool_calls"] = [{"name": call.name, "arguments": call.arguments} for call in result.calls]
    return Activity(
        kind=ActivityKind.LLM_CALL,
        status=ActivityStatus.SUCCEEDED,
        name=result.model,
        step_sequence=step.sequence,
        input=clipped(_asked(turn, step)),
        output=clipped(output),
        input_tokens=result.usage.input_tokens,
        output_tokens=result.usage.output_tokens,
        cached_tokens=result.usage.cached_tokens,
        reasoning_tokens=result.usage.reasoning_tokens,
        cost_nanos=result.cost_nanos,
        metadata={"attempt": step.attempt},
        **_since(turn, turn.asked_at),
    )


def model_failed(turn: Turn, step: Step, reason: str, message: str) -> Activity:
    """A model step that brought none."""
    return Activity(
        kind=ActivityKind.LLM_CALL,
        status=ActivityStatus.FAILED,
        name=turn.agent.model,
        step_sequence=step.sequence,
        input=clipped(_asked(turn, step)),
        metadata={"attempt": step.attempt},
        **error_fields(reason, message),
        **_since(turn, turn.asked_at),
    )


def tool_called(turn: Turn, step: Step, outcome: Outcome, cost_nanos: int) -> Activity:
    """A tool step that ended."""
    assert step.intent is not None
    failed = outcome.is_error
    return Activity(
        kind=ActivityKind.TOOL_CALL,
        status=ActivityStatus.FAILED if failed else ActivityStatus.SUCCEEDED,
        name=step.intent.name,
        step_sequence=step.sequence,
        input=clipped(step.intent.arguments),
        output=None if failed else clipped(outcome.output),
        cost_nanos=cost_nanos,
        metadata={"blob_id": outcome.blob_id} if outcome.blob_id else {},
        **(error_fields("TOOL_FAILED", str(outcome.output)) if failed else {}),
        **_since(turn, turn.called_at.get(step.sequence, now()), outcome.nanoseconds),
    )


def effect_unknown(turn: Turn, step: Step, intent: ToolIntent) -> Activity:
    """A tool step of which nobody knows whether it took effect."""
    return Activity(
        kind=ActivityKind.TOOL_CALL,
        status=ActivityStatus.UNKNOWN,
        name=intent.name,
        step_sequence=step.sequence,
        input=clipped(intent.arguments),
        **error_fields("EFFECT_UNKNOWN", "The call was begun, and its end was not seen."),
        **_since(turn, turn.called_at.get(step.sequence, turn.run.create_time)),
    )


def run_ended(turn: Turn, ending: Ending) -> Activity:
    """The run itself, with the sums over it."""
    failed = ending.state is not RunState.COMPLETED
    degraded = turn.begun.degraded if turn.begun else ""
    tools = {step.intent.name for step in turn.steps if step.kind is StepKind.TOOL and step.intent is not None}
    return Activity(
        kind=ActivityKind.RUN,
        status=ActivityStatus.FAILED if failed else ActivityStatus.SUCCEEDED,
        name=turn.agent.name,
        input=clipped({"text": turn.run.text}),
        output=None if failed else clipped({"text": ending.answer}),
        input_tokens=turn.usage.input_tokens,
        output_tokens=turn.usage.output_tokens,
        cached_tokens=turn.usage.cached_tokens,
        reasoning_tokens=turn.usage.reasoning_tokens,
        cost_nanos=turn.cost_nanos,
        tools_used=tuple(sorted(tools)),
        metadata={"recoveries": turn.run.recovery_count, **({"recall_failed": degraded} if degraded else {})},
        **(error_fields(ending.error.reason, ending.error.message) if ending.error else {}),
        **_since(turn, turn.run.create_time),
    )


def _since(turn: Turn, start: datetime, nanoseconds: int | None = None) -> dict[str, Any]:
    """What all rows of a run share, and when this one's thing began."""
    run = turn.run
    # Clocks of replicas and database differ: no row ends before it began.
    elapsed = max(0, int((now() - start).total_seconds() * 1e9)) if nanoseconds is None else nanoseconds
    return {
        "activity_id": UUID(int=uuid7().int),
        "start_time": start,
        "nanoseconds": elapsed,
        "agent_id": run.agent_id,
        "agent_revision": turn.agent.revision,
        "session_id": run.session_id,
        "run_id": run.run_id,
        "user_id": run.user_id,
        "trace_id": run.trace_id,
        "span_id": run.span_id,
    }


def _asked(turn: Turn, step: Step) -> dict[str, Any]:
    """What the model was told since it was asked last: with the rows before, the whole conversation."""
    before = [earlier for earlier in turn.steps if earlier.sequence < step.sequence]
    results = []
    for earlier in reversed(before):
        if earlier.kind is StepKind.LLM:
            break
        if earlier.kind is StepKind.TOOL and earlier.intent is not None and earlier.result is not None:
            results.append({"tool": earlier.intent.name, "output": getattr(earlier.result, "output", None)})
    return {"tool_results": results[::-1]} if results else {"text": turn.run.text}
