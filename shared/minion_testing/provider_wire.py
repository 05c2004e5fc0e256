"""Answers in the shapes of OpenAI's wire protocol."""

import hashlib
import struct
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from minion_testing.provider_ledger import Asked
from minion_testing.provider_script import Reply


def last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the user said last, which scripts are matched against."""
    for message in reversed(messages):
        if message.get("role") == "user":
            content = message.get("content") or ""
            if isinstance(content, str):
                return content
            return "".join(part.get("text", "") for part in content)
    return ""


def tokens(text: str) -> int:
    """A count that depends on the text alone."""
    return max(1, len(text.encode()) // 4)


def _usage(reply: Reply) -> dict[str, Any]:
    return {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": (reply.input_tokens or 0) + (reply.output_tokens or 0),
        "prompt_tokens_details": {"cached_tokens": reply.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
    }


def _tool_calls(asked: Asked, reply: Reply) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{asked.id}_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for index, (name, arguments) in enumerate(reply.tool_calls)
    ]


def completion(asked: Asked, reply: Reply) -> dict[str, Any]:
    """The whole answer as `chat.completion`."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.tool_calls:
        message["tool_calls"] = _tool_calls(asked, reply)
    answer: dict[str, Any] = {
        "id": f"chatcmpl-{asked.id}",
        "object": "chat.completion",
        "created": 0,
        "model": asked.model,
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason, "logprobs": None}],
    }
    if reply.counts_tokens:
        answer["usage"] = _usage(reply)
    return answer


def events(asked: Asked, reply: Reply, *, include_usage: bool) -> list[bytes]:
    """The stream's events: the role, one a piece of text, two a tool call, the finish, the usage."""
    head: dict[str, Any] = {
        "id": f"chatcmpl-{asked.id}",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": asked.model,
    }

    def event(delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return b"data: " + orjson.dumps({**head, "choices": [choice]}) + b"\n\n"

    stream = [event({"role": "assistant", "content": ""})]
    stream += [event({"content": piece}) for piece in reply.pieces()]
    for index, call in enumerate(_tool_calls(asked, reply)):
        arguments = call["function"]["arguments"]
        half = len(arguments) // 2
        first = {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": arguments[:half]}}
        stream.append(event({"tool_calls": [first]}))
        stream.append(event({"tool_calls": [{"index": index, "function": {"arguments": arguments[half:]}}]}))
    stream.append(event({}, reply.finish_reason))
    if include_usage and reply.counts_tokens:
        stream.append(b"data: " + orjson.dumps({**head, "choices": [], "usage": _usage(reply)}) + b"\n\n")
    return stream


def vector(text: str, dimensions: int) -> bytes:
    """A unit vector that depends on the text alone, as little-endian 32-bit floats."""
    raw = struct.unpack(f"<{dimensions}h", hashlib.shake_128(text.encode()).digest(2 * dimensions))
    length = sum(value * value for value in raw) ** 0.5 or 1.0
    return struct.pack(f"<{dimensions}f", *(value / length for value in raw))


def embeddings(model: str, texts: Sequence[str], *, dimensions: int, base64: bool) -> dict[str, Any]:
    """The answer to an embedding request."""
    packed = [vector(text, dimensions) for text in texts]
    values = [b64encode(data).decode() if base64 else struct.unpack(f"<{dimensions}f", data) for data in packed]
    counted = sum(tokens(text) for text in texts)
    return {
        "object": "list",
        "model": model,
        "data": [{"object": "embedding", "index": index, "embedding": value} for index, value in enumerate(values)],
        "usage": {"prompt_tokens": counted, "total_tokens": counted},
    }
