"""Between the contract's messages and the domain's."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from minion.gateway.v1 import inference_pb2, run_pb2, run_service_pb2, run_step_pb2
from minion_errors import Violations
from minion_grpc import wire

from minion_gateway.runs.domain import NewRun, Run, RunPage, RunState, StepKind, StepState, TokenUsage
from minion_gateway.runs.happenings import (
    AttemptSuperseded,
    Ended,
    MemoriesRecalled,
    RunEvent,
    StateChanged,
    SummaryUsed,
    TextAdded,
    ToolFinished,
    ToolStarted,
)
from minion_gateway.runs.listed_steps import ListedStep
from minion_gateway.runs.store import RunFilter

_MAXIMUM_TEXT = 65_536
# A message of the session holds 256 KiB with its framing.
_MAXIMUM_TEXT_BYTES = 255 * 1024
_MAXIMUM_METADATA = 16 * 1024
_DEFAULT_PAGE, _LARGEST_PAGE, _DEFAULT_STEPS = 50, 500, 100
_STATES = {RunState[name.removeprefix("RUN_STATE_")]: number for name, number in run_pb2.RunState.items() if number}
_STEP_KINDS = {
    StepKind[name.removeprefix("RUN_STEP_KIND_")]: number for name, number in run_step_pb2.RunStepKind.items() if number
}
_STEP_STATES = {
    StepState[name.removeprefix("RUN_STEP_STATE_")]: number
    for name, number in run_step_pb2.RunStepState.items()
    if number
}
_FROM_STATE = {number: state for state, number in _STATES.items()}


@dataclass(frozen=True, slots=True)
class ListRequest:
    """Which page of which list."""

    wanted: RunFilter
    page_size: int
    page_token: str


def new_run_from_proto(request: run_service_pb2.CreateRunRequest | run_service_pb2.StreamRunRequest) -> NewRun:
    """Reads a turn that a caller asks for."""
    violations = Violations()
    text = violations.length("text", request.text, minimum=1, maximum=_MAXIMUM_TEXT)
    if (size := len(text.encode())) > _MAXIMUM_TEXT_BYTES:
        violations.add("text", f"must have at most {_MAXIMUM_TEXT_BYTES} bytes, has {size}")
    if request.busy_policy not in run_pb2.BusyPolicy.values():
        violations.add("busy_policy", f"is the unknown value {request.busy_policy}")
    metadata = wire.from_bounded_struct(request.metadata, "metadata", violations, maximum=_MAXIMUM_METADATA)
    session_id = violations.identifier("session_id", request.session_id)
    request_id = violations.optional_identifier("request_id", request.request_id)
    violations.raise_if_any()
    return NewRun(
        session_id=session_id,
        text=text,
        queued=request.busy_policy == run_pb2.BUSY_POLICY_ENQUEUE,
        metadata=metadata,
        request_id=request_id,
        digest=wire.request_digest(request) if request_id is not None else b"",
    )


def run_id_from_proto(request: run_service_pb2.GetRunRequest) -> UUID:
    """Reads which run is asked for."""
    violations = Violations()
    run_id = violations.identifier("run_id", request.run_id)
    violations.raise_if_any()
    return run_id


def watch_from_proto(request: run_service_pb2.WatchRunRequest) -> tuple[UUID, int]:
    """Reads which run is watched, and from where."""
    violations = Violations()
    run_id = violations.identifier("run_id", request.run_id)
    if request.after_sequence < 0:
        violations.add("after_sequence", f"must not be negative, is {request.after_sequence}")
    violations.raise_if_any()
    return run_id, request.after_sequence


def list_from_proto(request: run_service_pb2.ListRunsRequest) -> ListRequest:
    """Reads which runs to list."""
    violations = Violations()
    session_id = violations.optional_identifier("session_id", request.session_id)
    agent_id = violations.optional_identifier("agent_id", request.agent_id)
    if request.state not in run_pb2.RunState.values():
        violations.add("state", f"is the unknown value {request.state}")
    if request.page_size < 0:
        violations.add("page_size", f"must not be negative, is {request.page_size}")
    violations.raise_if_any()
    size = min(request.page_size or _DEFAULT_PAGE, _LARGEST_PAGE)
    return ListRequest(RunFilter(session_id, agent_id, _FROM_STATE.get(request.state)), size, request.page_token)


def steps_from_proto(request: run_service_pb2.ListRunStepsRequest) -> tuple[UUID, int, str]:
    """Reads of which run steps are listed, and which page."""
    violations = Violations()
    run_id = violations.identifier("run_id", request.run_id)
    if request.page_size < 0:
        violations.add("page_size", f"must not be negative, is {request.page_size}")
    violations.raise_if_any()
    return run_id, min(request.page_size or _DEFAULT_STEPS, _LARGEST_PAGE), request.page_token


def step_to_proto(step: ListedStep) -> run_step_pb2.RunStep:
    """Writes a step."""
    return run_step_pb2.RunStep(
        sequence=step.sequence,
        kind=_STEP_KINDS[step.kind],
        state=_STEP_STATES[step.state],
        attempt=step.attempt,
        name=step.name,
        tool_call_id=step.call_id,
        usage=None if step.usage is None else _usage(step.usage),
        cost_nanos=step.cost_nanos,
        blob_id=step.blob_id,
        summarized_up_to=step.summarized_up_to,
        error_reason=step.error_reason,
        start_time=wire.to_timestamp(step.start_time),
        end_time=wire.to_optional_timestamp(step.end_time),
    )


def run_to_proto(run: Run) -> run_pb2.Run:
    """Writes a run."""
    return run_pb2.Run(
        run_id=str(run.run_id),
        session_id=str(run.session_id),
        agent_id=str(run.agent_id),
        agent_revision=run.agent_revision,
        user_id=run.user_id,
        state=_STATES[run.state],
        answer=run.answer,
        error=run_pb2.RunError(reason=run.error.reason, message=run.error.message) if run.error else None,
        usage=_usage(run.usage),
        cost_nanos=run.cost_nanos,
        step_count=run.step_count,
        recovery_count=run.recovery_count,
        last_event_sequence=run.last_event_sequence,
        trace_id=run.trace_id,
        metadata=wire.to_struct(run.metadata),
        create_time=wire.to_timestamp(run.create_time),
        end_time=wire.to_optional_timestamp(run.end_time),
    )


def page_to_proto(page: RunPage) -> run_service_pb2.ListRunsResponse:
    """Writes a page of runs."""
    return run_service_pb2.ListRunsResponse(
        runs=[run_to_proto(run) for run in page.runs], next_page_token=page.next_page_token
    )


def event_to_proto(event: RunEvent) -> run_pb2.RunEvent:
    """Writes an event: from memory or read back, on any replica, the same."""
    message = run_pb2.RunEvent(
        run_id=str(event.run_id), sequence=event.sequence, create_time=wire.to_timestamp(event.create_time)
    )
    match event.payload:
        case StateChanged(state=state):
            message.state_changed.state = _STATES[state]
        case MemoriesRecalled(memories=memories):
            message.memories_recalled.SetInParent()
            for memory in memories:
                message.memories_recalled.memories.add(
                    memory_id=memory.memory_id,
                    content=memory.content,
                    score=memory.score,
                    similarity=memory.similarity,
                )
        case SummaryUsed() as used:
            message.summary_used.CopyFrom(
                run_pb2.SummaryUsed(
                    summary_id=used.summary_id,
                    first_sequence=used.first_sequence,
                    last_sequence=used.last_sequence,
                    token_count=used.tokens,
                    model=used.model,
                )
            )
        case TextAdded(step=step, attempt=attempt, text=text):
            message.text_delta.CopyFrom(run_pb2.TextDelta(step_sequence=step, attempt=attempt, text=text))
        case ToolStarted() as started:
            message.tool_call_started.CopyFrom(
                run_pb2.ToolCallStarted(
                    step_sequence=started.step,
                    tool_call_id=started.call_id,
                    name=started.name,
                    arguments=wire.to_struct(started.arguments or {}),
                )
            )
        case ToolFinished() as finished:
            message.tool_call_finished.CopyFrom(
                run_pb2.ToolCallFinished(
                    step_sequence=finished.step,
                    tool_call_id=finished.call_id,
                    name=finished.name,
                    output=wire.to_value(finished.output),
                    is_error=finished.is_error,
                    duration=wire.to_duration(timedelta(microseconds=finished.nanoseconds // 1_000)),
                    blob_id=finished.blob_id,
                )
            )
        case AttemptSuperseded(step=step, attempt=attempt, void_from=void_from):
            message.attempt_superseded.CopyFrom(
                run_pb2.AttemptSuperseded(step_sequence=step, attempt=attempt, void_from_sequence=void_from)
            )
        case Ended():
            message.run_finished.SetInParent()
            if event.run is not None:
                message.run_finished.run.CopyFrom(run_to_proto(event.run))
    return message


def _usage(usage: TokenUsage) -> inference_pb2.Usage:
    return inference_pb2.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )
