"""OpenAI's chat protocol as bytes: request bodies, whole answers, streamed events.

Bodies are written and answers read by hand: the SDK validates every message of every request (0.17 ms of CPU each).
Protocol: https://platform.openai.com/docs/api-reference/chat.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from minion_gateway.inference.domain import (
    ChatMessage,
    Completion,
    CompletionRequest,
    Delta,
    Finished,
    FinishReason,
    Role,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from minion_gateway.inference.estimator import estimate_usage
from minion_gateway.inference.faults import answer_invalid
from minion_gateway.inference.providers.openai_faults import stream_failed

_FINISH_REASONS = {reason.value: reason for reason in FinishReason}
_DONE = b"[DONE]"
_MOST_TOKENS = 1_000_000_000


def body_of(request: CompletionRequest, *, stream: bool, output_limit_field: str) -> bytes:
    """Returns the request's JSON body."""
    body: dict[str, Any] = {"model": request.model, "messages": [_message(message) for message in request.messages]}
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in request.tools
        ]
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.maximum_output_tokens is not None:
        body[output_limit_field] = request.maximum_output_tokens
    if request.response_schema is not None:
        schema = {"name": _schema_name(request.response_schema), "schema": request.response_schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return orjson.dumps(body, default=dict)


def completion_from(request: CompletionRequest, provider: str, content: bytes) -> Completion:
    """Reads a whole answer. Raises Unavailable / PROVIDER_ANSWER_INVALID for anything but one."""
    try:
        answer = orjson.loads(content)
        choice = answer["choices"][0]
        message = choice["message"]
        text = message.get("content") or message.get("refusal") or ""
        calls = tuple(
            ToolCall(call["id"], call["function"]["name"], call["function"].get("arguments") or "{}")
            for call in message.get("tool_calls") or ()
        )
        finish = choice["finish_reason"]
        usage = _usage(answer.get("usage"))
        if not isinstance(text, str) or not isinstance(finish, str):
            raise TypeError("text and finish_reason are strings")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise answer_invalid("The provider's answer is not a chat completion.") from error
    return Completion(
        text=text,
        tool_calls=calls,
        finish_reason=_finish_reason(finish, calls),
        usage=usage or estimate_usage(request, text, calls),
        model=f"{provider}/{request.model}",
        provider=provider,
        provider_model=str(answer.get("model") or ""),
    )


class StreamReader:
    """Puts a streamed answer together: bytes in as they come, deltas out, the whole answer at the end."""

    def __init__(self, request: CompletionRequest, provider: str) -> None:
        self._request = request
        self._provider = provider
        self._rest = b""
        self._texts: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._model = ""
        self.done = False

    @property
    def answering(self) -> bool:
        """Whether anything of the answer has come."""
        return bool(self._texts or self._calls)

    def feed(self, data: bytes) -> Iterator[Delta]:
        """Yields what the bytes bring; half an event waits for its other half."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            # Other fields, comments and the blank lines between events carry nothing here.
            if line.startswith(b"data:"):
                payload = line[5:].strip()
                if payload == _DONE:
                    self.done = True
                elif payload:
                    yield from self._event(payload)

    def finish(self) -> Finished:
        """Returns the whole answer. Raises Unavailable / PROVIDER_ANSWER_INVALID when the stream was cut."""
        if self._finish is None:
            raise answer_invalid("The provider's stream ended before its answer did.")
        text = "".join(self._texts)
        calls = tuple(call.whole() for _, call in sorted(self._calls.items()))
        return Finished(
            Completion(
                text=text,
                tool_calls=calls,
                finish_reason=_finish_reason(self._finish, calls),
                usage=self._usage or estimate_usage(self._request, text, calls),
                model=f"{self._provider}/{self._request.model}",
                provider=self._provider,
                provider_model=self._model,
            )
        )

    def _event(self, payload: bytes) -> Iterator[Delta]:
        try:
            event = orjson.loads(payload)
            if event.get("error"):
                raise stream_failed(event["error"])
            self._model = self._model or event.get("model") or ""
            self._usage = _usage(event.get("usage")) or self._usage
            choices = event.get("choices")
            if not choices:
                return
            delta = choices[0].get("delta") or {}
            self._finish = choices[0].get("finish_reason") or self._finish
            text = delta.get("content") or delta.get("refusal")
            pieces = [self._call_piece(piece) for piece in delta.get("tool_calls") or ()]
            if text:
                self._texts.append(text)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise answer_invalid("The provider's stream holds an event that is not a chat completion's.") from error
        if text:
            yield TextDelta(text)
        yield from pieces

    def _call_piece(self, piece: Mapping[str, Any]) -> ToolCallDelta:
        index = int(piece.get("index") or 0)
        function = piece.get("function") or {}
        arguments = function.get("arguments") or ""
        call = self._calls.get(index)
        if call is None:
            call = self._calls[index] = _Call(piece["id"], function["name"])
            delta = ToolCallDelta(index, call.id, call.name, arguments)
        else:
            delta = ToolCallDelta(index, "", "", arguments)
        call.arguments.append(arguments)
        return delta


class _Call:
    """A tool call under way."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self, id: str, name: str) -> None:
        self.id = id
        self.name = name
        self.arguments: list[str] = []

    def whole(self) -> ToolCall:
        return ToolCall(self.id, self.name, "".join(self.arguments) or "{}")


def _schema_name(schema: Mapping[str, Any]) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", str(schema.get("title") or "answer"))[:64]


def _message(message: ChatMessage) -> dict[str, Any]:
    if message.role is Role.TOOL:
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": message.text}
    if not message.tool_calls:
        return {"role": message.role.value, "content": message.text}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls
    ]
    return {"role": message.role.value, "content": message.text or None, "tool_calls": calls}


def _finish_reason(value: str, calls: tuple[ToolCall, ...]) -> FinishReason:
    # Some servers say "stop" when they call tools, and some have words of their own for a plain end.
    if calls:
        return FinishReason.TOOL_CALLS
    reason = _FINISH_REASONS.get(value, FinishReason.STOP)
    return FinishReason.STOP if reason is FinishReason.TOOL_CALLS else reason


def _usage(usage: Mapping[str, Any] | None) -> Usage | None:
    if not usage:
        return None
    read, written = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    counts = (
        int(usage["prompt_tokens"]),
        int(usage.get("completion_tokens") or 0),
        int(read.get("cached_tokens") or 0),
        int(written.get("reasoning_tokens") or 0),
    )
    # Servers that don't know say -1; it would lessen the bill, and no bill holds what is beyond all measure.
    return Usage(*counts) if all(0 <= count <= _MOST_TOKENS for count in counts) else None
