"""Working memory: values by key, each with a version of its own."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

# What one session may keep; the bytes are those of the entries on the wire, so that all of them fit one reply.
MOST_ENTRIES = 1_000
MOST_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """A value as it is kept; `value` is any JSON value."""

    key: str
    value: Any
    version: int
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """A value to set; with `expected_version` only if the entry is at it, 0 standing for none."""

    key: str
    value: Any
    byte_count: int
    expected_version: int | None


@dataclass(frozen=True, slots=True)
class Changes:
    """Values to set in one session, all or none."""

    session_id: UUID
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Keys:
    """Entries of one session, by key."""

    session_id: UUID
    keys: tuple[str, ...]
