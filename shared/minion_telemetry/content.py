"""What was said, on spans: only where the deployment asks for it (`MINION_TRACE_CONTENT`), masked and cut.

The form of messages is that of the GenAI conventions' JSON schemas for input and output messages.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from opentelemetry.trace import Span

from minion_telemetry import masking

# Attributes that are longer are cut: a span is no store of content.
MAXIMUM_CHARACTERS = 8_192
# So much of one text, so that an attribute holds more than one.
_MAXIMUM_TEXT_CHARACTERS = 2_048


class Content:
    """Writes what was said onto spans, where this deployment records it."""

    __slots__ = ("_recorded",)

    def __init__(self, *, recorded: bool) -> None:
        self._recorded = recorded

    def write_text(self, span: Span, name: str, text: str) -> None:
        """Sets a text."""
        if self._recorded and span.is_recording():
            span.set_attribute(name, _text(text, MAXIMUM_CHARACTERS))

    def write_json(self, span: Span, name: str, value: Callable[[], Any]) -> None:
        """Sets a JSON value, which is made only where it is recorded; one that is too long is cut and no JSON then."""
        if self._recorded and span.is_recording():
            span.set_attribute(name, _text(_json(value()), MAXIMUM_CHARACTERS))

    def write_messages(self, span: Span, name: str, messages: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        """Sets messages, the newest that fit: what is left out is the oldest of them."""
        if not self._recorded or not span.is_recording():
            return
        kept: list[str] = []
        room = MAXIMUM_CHARACTERS - 2
        for message in reversed(messages()):
            written = _json(message)
            if len(written) + 1 > room:
                break
            room -= len(written) + 1
            kept.append(written)
        span.set_attribute(name, f"[{','.join(reversed(kept))}]")


def _json(value: Any) -> str:
    try:
        return orjson.dumps(_cut(masking.mask_value(value))).decode()
    except TypeError:
        # Integers beyond 64 bits and lone surrogates: rare, and no reason to lose the call.
        return json.dumps(_cut(masking.mask_value(value)))


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value, _MAXIMUM_TEXT_CHARACTERS, mask=False)
    if isinstance(value, dict):
        return {name: _cut(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_cut(item) for item in value]
    # A payment card may stand there as a number.
    return masking.mask_json(value)


def _text(text: str, limit: int, *, mask: bool = True) -> str:
    kept = masking.mask(text) if mask else text
    return kept if len(kept) <= limit else f"{kept[: limit - 1]}…"
