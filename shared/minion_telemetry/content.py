"""What was said, on spans: only where the deployment asks for it (`MINION_TRACE_CONTENT`), cut and masked.

It is cut first: masking takes time on the event loop, and what no span holds need not be masked. The form of messages
is that of the GenAI conventions' JSON schemas for input and output messages.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson
from opentelemetry.trace import Span

from minion_telemetry import masking

# Attributes that are longer are cut: a span is no store of content.
MAXIMUM_CHARACTERS = 8_192
# So much of one text, so that an attribute holds more than one.
_MAXIMUM_TEXT_CHARACTERS = 2_048
_MAXIMUM_DEPTH = 8
# What JSON puts around a name or an item, at least.
_AROUND = 3
_CUT = "…"


class Content:
    """Writes what was said onto spans, where this deployment records it."""

    __slots__ = ("_recorded",)

    def __init__(self, *, recorded: bool) -> None:
        self._recorded = recorded

    def write_text(self, span: Span, name: str, text: str) -> None:
        """Sets a text."""
        if self._recorded and span.is_recording():
            span.set_attribute(name, _Room(MAXIMUM_CHARACTERS).text(text, MAXIMUM_CHARACTERS))

    def write_json(self, span: Span, name: str, value: Callable[[], Any]) -> None:
        """Sets a JSON value, which is made only where it is recorded; of one that is too long, its beginning."""
        if self._recorded and span.is_recording():
            span.set_attribute(name, _fitting(value(), MAXIMUM_CHARACTERS))

    def write_messages(self, span: Span, name: str, newest_first: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        """Sets messages, the newest that fit, oldest first; no older one is asked for, and the newest is cut to fit."""
        if not self._recorded or not span.is_recording():
            return
        kept: list[str] = []
        left = MAXIMUM_CHARACTERS - len("[]")
        for message in newest_first():
            room = _Room(left)
            written = _json(room.value(message))
            if room.exceeded or len(written) > left:
                if not kept:
                    kept.append(_fitting(message, left))
                break
            kept.append(written)
            left -= len(written) + len(",")
        span.set_attribute(name, f"[{','.join(reversed(kept))}]")


class _Room:
    """Masks as much of a value as there is room for; the rest is never looked at."""

    __slots__ = ("_left", "exceeded")

    def __init__(self, characters: int) -> None:
        self._left = characters
        self.exceeded = False

    def value(self, value: Any, depth: int = 0) -> Any:
        """Gives a JSON value, cut and masked; what lies too deep is left out."""
        match value:
            case str():
                return self.text(value, _MAXIMUM_TEXT_CHARACTERS)
            case None | bool() | int() | float():
                self._left -= 1
                # A payment card may stand there as a number.
                return masking.mask_json(value)
            case Mapping() | list() | tuple() if depth >= _MAXIMUM_DEPTH:
                return _CUT
            case Mapping():
                return self._mapping(value, depth)
            case list() | tuple():
                return self._sequence(value, depth)
            case _:
                return self.text(str(value), _MAXIMUM_TEXT_CHARACTERS)

    def text(self, text: str, limit: int) -> str:
        """Gives a text's beginning, masked."""
        if limit > self._left:
            limit = max(self._left, 1)
            self.exceeded = self.exceeded or len(text) > limit
        self._left -= min(len(text), limit)
        kept = masking.mask_beginning(text, limit)
        return kept if len(text) <= limit and len(kept) <= limit else f"{kept[: limit - 1]}{_CUT}"

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, item in value.items():
            if self._is_full():
                kept[_CUT] = _CUT
                break
            written = self.text(str(name), _MAXIMUM_TEXT_CHARACTERS)
            kept[written] = masking.SECRET if masking.is_secret_name(name) else self.value(item, depth + 1)
        return kept

    def _sequence(self, value: Sequence[Any], depth: int) -> list[Any]:
        kept: list[Any] = []
        for item in value:
            if self._is_full():
                kept.append(_CUT)
                break
            kept.append(self.value(item, depth + 1))
        return kept

    def _is_full(self) -> bool:
        self._left -= _AROUND
        if self._left > 0:
            return False
        self.exceeded = True
        return True


def _fitting(value: Any, limit: int) -> str:
    """Gives the JSON of as much of a value as has so many characters."""
    room = limit
    while len(written := _json(_Room(room).value(value))) > limit and room:
        # What JSON escapes is longer than what it was made of.
        room = room * limit // len(written) * 15 // 16
    return written


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # Integers beyond 64 bits and lone surrogates: rare, and no reason to lose the call.
        return json.dumps(value)
