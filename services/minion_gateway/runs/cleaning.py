"""What models and tools write, made fit to be kept: no U+0000, no lone surrogates, numbers that JSON can name."""

import math
from collections.abc import Mapping
from typing import Any

from minion_gateway.inference.domain import ToolCall
from minion_gateway.runs.domain import RequestedCall

_MAXIMUM_DEPTH = 24
_MAXIMUM_CALLS = 32
_MAXIMUM_CALL_ID = 128
_MAXIMUM_NAME = 64
_MAXIMUM_ARGUMENTS = 64 * 1024
_LARGEST = 2**63
# Protobuf's framing of one value in a Struct, at most.
_FRAME = 12


def clean(text: str) -> str:
    """Returns the text with characters that can't be stored replaced by U+FFFD."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return text


def clean_json(value: Any, depth: int = 0) -> Any:
    """Returns a JSON value that every part of the system can hold.

    Raises ValueError for what no cleaning mends: nested deeper than 24 levels, or not JSON at all.
    """
    if depth > _MAXIMUM_DEPTH:
        raise ValueError(f"nested deeper than {_MAXIMUM_DEPTH} levels")
    match value:
        case None | bool():
            return value
        case str():
            return clean(value)
        case int():
            return value if -_LARGEST <= value < _LARGEST else float(value)
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {clean(str(name)): clean_json(item, depth + 1) for name, item in value.items()}
        case list() | tuple():
            return [clean_json(item, depth + 1) for item in value]
        case _:
            raise ValueError(f"a {type(value).__name__} is no JSON value")


def weight(value: Any) -> int:
    """Returns bytes that a JSON value doesn't pass, as JSON or as a Struct."""
    match value:
        case str():
            return _FRAME + len(value.encode())
        case Mapping():
            return _FRAME + sum(_FRAME + weight(name) + weight(item) for name, item in value.items())
        case list() | tuple():
            return _FRAME + sum(weight(item) for item in value)
        case _:
            return 2 * _FRAME


def requested(step: int, calls: tuple[ToolCall, ...]) -> tuple[RequestedCall, ...]:
    """Reads the calls that a model asks for, the first 32: each with an id of its own, a name, and its arguments.

    Arguments that are no JSON object, or more than 64 KiB, become None: the model is told so.
    """
    seen: set[str] = set()
    result = []
    for place, call in enumerate(calls[:_MAXIMUM_CALLS]):
        call_id = clean(call.id)
        if not call_id or len(call_id) > _MAXIMUM_CALL_ID or call_id in seen:
            call_id = f"call_{step}_{place}"
        seen.add(call_id)
        result.append(RequestedCall(call_id, clean(call.name)[:_MAXIMUM_NAME] or "unnamed", _arguments(call)))
    return tuple(result)


def _arguments(call: ToolCall) -> dict[str, Any] | None:
    try:
        decoded = call.decoded()
        arguments: dict[str, Any] | None = None if decoded is None else clean_json(decoded)
    except (ValueError, OverflowError, RecursionError):
        return None
    return arguments if weight(arguments) <= _MAXIMUM_ARGUMENTS else None
