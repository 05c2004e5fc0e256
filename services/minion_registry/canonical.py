"""Compares and hashes JSON as what it says. Python takes true for 1 and false for 0; a schema and a tool don't."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final

# Beyond it whole numbers come as floats from the wire, and as whole ones from the database.
_EXACT_INTEGER: Final = 2**53


def canonical(value: Any) -> bytes:
    """Writes JSON, or a dataclass that holds some, in the one way that stands for what it says.

    Keys sorted by code point, no white space, UTF-8 unescaped, whole numbers up to 2^53 without a fraction.
    """
    written = json.dumps(
        _plain(value), ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"), default=str
    )
    return written.encode()


def same(one: Any, other: Any) -> bool:
    """Tells whether two values say the same: true isn't 1, and 1.0 is."""
    return canonical(one) == canonical(other)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(inner) for inner in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, int | float) and not isinstance(value, bool):
        is_exact = abs(value) <= _EXACT_INTEGER and value == int(value)
        return int(value) if is_exact else float(value)
    return value
