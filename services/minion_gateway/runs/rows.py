"""Steps' intents and results, read back from their stored JSON."""

from typing import Any

from pydantic import TypeAdapter

from minion_gateway.runs.domain import BeginResult, LlmResult, StepKind, StepResult, ToolIntent, ToolResult

_RESULTS: dict[StepKind, TypeAdapter[Any]] = {
    StepKind.BEGIN: TypeAdapter(BeginResult),
    StepKind.LLM: TypeAdapter(LlmResult),
    StepKind.TOOL: TypeAdapter(ToolResult),
}
_INTENT = TypeAdapter(ToolIntent)


def intent_from_row(kind: StepKind, stored: Any) -> ToolIntent | None:
    """Reads an intent; steps of other kinds than TOOL intend nothing that the run doesn't say."""
    return _INTENT.validate_python(stored) if kind is StepKind.TOOL else None


def result_from_row(kind: StepKind, stored: Any) -> StepResult:
    """Reads a result, where there is one; fails loudly on anything that the engine doesn't write."""
    if stored is None or kind not in _RESULTS:
        return None
    read: StepResult = _RESULTS[kind].validate_python(stored)
    return read
