"""What a turn leaves in its session, cut into appends that the session takes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from minion_grpc.wire import json_bytes, off_loop

from minion_gateway.runs.cleaning import weight
from minion_gateway.runs.domain import LlmResult, RequestedCall, Step, ToolResult

# The session takes 100 messages and 1 MiB an append, 256 KiB and 64 parts a message; the rest is for framing.
_MAXIMUM_MESSAGES = 100
_MAXIMUM_APPEND = 900 * 1024
_MAXIMUM_MESSAGE = 240 * 1024
_MAXIMUM_TEXT = 200 * 1024
_FRAME = 512
_BYTES_A_TOKEN = 4
Measured = TypeVar("Measured")


@dataclass(frozen=True, slots=True)
class AssistantSaid:
    """The model's words and wishes."""

    text: str
    calls: tuple[RequestedCall, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class ToolSaid:
    """A tool's answer."""

    call_id: str
    name: str
    output: Any
    is_error: bool
    blob_id: str = ""


Said = AssistantSaid | ToolSaid


async def measured(measure: Callable[[Sequence[Step]], Measured], steps: Sequence[Step]) -> Measured:
    """Measures what a turn said by `appends_of` or `tokens_of`: off the event loop where there is much of it."""
    return await off_loop(measure, steps, json_bytes(_values(steps)))


def _values(steps: Sequence[Step]) -> Iterator[Any]:
    for step in steps:
        match step.result:
            case LlmResult(calls=calls):
                yield from (call.arguments for call in calls)
            case ToolResult(output=output):
                yield output


def appends_of(steps: Sequence[Step]) -> list[list[Said]]:
    """Returns the turn's messages in order, in appends of at most 100 messages and 1 MiB; one at least.

    The last may be empty: an answer of no words leaves nothing, and the hold must be released all the same.
    """
    appends: list[list[Said]] = [[]]
    size = 0
    for message in _messages(steps):
        length = _weight(message)
        if appends[-1] and (len(appends[-1]) == _MAXIMUM_MESSAGES or size + length > _MAXIMUM_APPEND):
            appends.append([])
            size = 0
        appends[-1].append(message)
        size += length
    return appends


def _messages(steps: Sequence[Step]) -> list[Said]:
    said: list[Said] = []
    for step in steps:
        match step.result:
            case LlmResult(text=text, calls=calls, usage=usage, estimated=estimated):
                if text or calls:
                    written = 0 if estimated else max(0, usage.output_tokens - usage.reasoning_tokens)
                    parts = list(_parted(_cut(text), calls))
                    # What each part takes nobody has counted: the session estimates it.
                    said += [replace(part, tokens=written) for part in parts] if len(parts) == 1 else parts
            case ToolResult(output=output, is_error=is_error, blob_id=blob_id) if step.intent is not None:
                said.append(ToolSaid(step.intent.call_id, step.intent.name, output, is_error, blob_id))
    return said


def _parted(text: str, calls: Sequence[RequestedCall]) -> Iterator[AssistantSaid]:
    """Parts an answer whose calls say more than a message holds; in a context each call has its result all the same."""
    group: list[RequestedCall] = []
    size = _FRAME + weight(text)
    for call in calls:
        length = _FRAME + weight(call.arguments)
        if size + length > _MAXIMUM_MESSAGE:
            yield AssistantSaid(text, tuple(group), 0)
            text, group, size = "", [], _FRAME
        group.append(call)
        size += length
    yield AssistantSaid(text, tuple(group), 0)


def tokens_of(steps: Sequence[Step]) -> int:
    """Returns tokens that the turn's messages don't pass in the session's count, but for what a client counts."""
    return sum(
        max(_weight(message) // _BYTES_A_TOKEN, message.tokens if isinstance(message, AssistantSaid) else 0)
        for message in _messages(steps)
    )


def _weight(message: Said) -> int:
    match message:
        case AssistantSaid(text=text, calls=calls):
            return _FRAME + weight(text) + sum(_FRAME + weight(call.arguments) for call in calls)
        case ToolSaid(output=output):
            return _FRAME + weight(output)


def _cut(text: str) -> str:
    data = text.encode()
    if len(data) <= _MAXIMUM_TEXT:
        return text
    return data[:_MAXIMUM_TEXT].decode(errors="ignore") + "\n… (cut: too long for a message)"
