"""A change: something that happened to a session."""

import enum
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


class SessionChangeKind(enum.Enum):
    """What happened; all but SYNCED stand so in the feed."""

    SYNCED = "synced"  # nothing: every change before the cursor was told
    CREATED = "created"
    UPDATED = "updated"
    ACTIVE = "active"
    CLOSED = "closed"
    EXPIRED = "expired"
    ARCHIVED = "archived"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class SessionChange:
    """One change; a watch is resumed behind it with its cursor. SYNCED concerns no session."""

    cursor: str
    kind: SessionChangeKind
    session_id: UUID | None = None
    tenant_id: UUID | None = None
    create_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class ActivityRound:
    """A round of telling which sessions are active: its time, and since when messages may not have been told."""

    begin_time: datetime
    since: datetime
