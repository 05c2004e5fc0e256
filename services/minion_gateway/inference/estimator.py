"""How many tokens a request takes, before a provider has counted them.

Two figures: a likely one, for fitting context, and an upper bound, for reserving money. Byte-level tokenizers never
make more tokens than there are bytes, so bytes plus the protocol's framing can't be passed.
"""

from collections.abc import Iterator, Sequence

import orjson

from minion_gateway.inference.domain import ChatMessage, CompletionRequest, ToolCall, ToolSpec, Usage

_BYTES_PER_TOKEN = 4
_MARGIN = 1.1
# OpenAI's chat framing is 3 tokens a message and 3 to open the answer, and about 8 a tool; the bound doubles them.
_LIKELY_MESSAGE, _LIKELY_ANSWER, _LIKELY_TOOL = 3, 3, 8
_BOUND_MESSAGE, _BOUND_ANSWER, _BOUND_TOOL = 8, 8, 16
_WEIGHT = 0.2
_REMEMBERED_MODELS = 1_000


def estimate_text(text: str) -> int:
    """Returns the likely tokens of a text; at least 1 for any that is not empty."""
    return -(-len(text.encode()) * 11 // (_BYTES_PER_TOKEN * 10)) if text else 0


def estimate_request(request: CompletionRequest) -> int:
    """Returns the likely input tokens of a request."""
    count = sum(len(piece) for piece in _pieces(request)) * _MARGIN / _BYTES_PER_TOKEN
    return int(count) + _framing(request, _LIKELY_MESSAGE, _LIKELY_TOOL) + _LIKELY_ANSWER


def bound_request(request: CompletionRequest) -> int:
    """Returns input tokens that the request can't pass, whatever the tokenizer."""
    return (
        sum(len(piece) for piece in _pieces(request)) + _framing(request, _BOUND_MESSAGE, _BOUND_TOOL) + _BOUND_ANSWER
    )


def estimate_usage(request: CompletionRequest, text: str, tool_calls: Sequence[ToolCall]) -> Usage:
    """Returns the likely usage of an answer whose provider counted nothing."""
    written = estimate_text(text) + sum(estimate_text(call.name) + estimate_text(call.arguments) for call in tool_calls)
    return Usage(input_tokens=estimate_request(request), output_tokens=written, estimated=True)


class TokenEstimator:
    """Likely input tokens, corrected for each model by what its provider counted."""

    def __init__(self) -> None:
        self._ratios: dict[str, float] = {}

    def estimate(self, request: CompletionRequest) -> int:
        """Returns the likely input tokens of a request to its model; never above the upper bound."""
        likely = estimate_request(request) * self._ratios.get(request.model, 1.0)
        return min(int(likely) + 1, bound_request(request))

    def observe(self, request: CompletionRequest, usage: Usage) -> None:
        """Learns from a provider's own count, by an exponential mean that follows a changed tokenizer."""
        if usage.estimated or usage.input_tokens <= 0:
            return
        if request.model not in self._ratios and len(self._ratios) >= _REMEMBERED_MODELS:
            self._ratios.pop(next(iter(self._ratios)))
        ratio = usage.input_tokens / estimate_request(request)
        known = self._ratios.get(request.model, ratio)
        self._ratios[request.model] = known + _WEIGHT * (ratio - known)


def _pieces(request: CompletionRequest) -> Iterator[bytes]:
    for message in request.messages:
        yield from _message_pieces(message)
    for tool in request.tools:
        yield from _tool_pieces(tool)
    if request.response_schema is not None:
        yield orjson.dumps(request.response_schema, default=dict)


def _message_pieces(message: ChatMessage) -> Iterator[bytes]:
    yield message.text.encode()
    yield message.tool_call_id.encode()
    for call in message.tool_calls:
        yield f"{call.id}{call.name}{call.arguments}".encode()


def _tool_pieces(tool: ToolSpec) -> Iterator[bytes]:
    yield f"{tool.name}{tool.description}".encode()
    yield orjson.dumps(tool.parameters, default=dict)


def _framing(request: CompletionRequest, message: int, tool: int) -> int:
    calls = sum(len(each.tool_calls) for each in request.messages)
    return message * (len(request.messages) + calls) + tool * len(request.tools)
