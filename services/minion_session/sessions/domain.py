"""A session: a conversation between one user and one agent."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from minion_errors import FailedPrecondition, NotFound


class SessionStatus(enum.Enum):
    """Where a session is in its life. The database tells, by its own clock."""

    ACTIVE = "active"
    CLOSED = "closed"  # terminal, but a run that had begun may still append
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class NewSession:
    """What is asked for; `session_id` and `ttl` are None where the caller leaves them to us."""

    session_id: UUID | None
    agent_id: UUID
    user_id: str
    display_name: str
    metadata: Mapping[str, Any]
    ttl: timedelta | None


@dataclass(frozen=True, slots=True)
class Session:
    """A session as it is stored; `last_sequence` is 0 while there is no message."""

    session_id: UUID
    agent_id: UUID
    user_id: str
    display_name: str
    status: SessionStatus
    last_sequence: int
    create_time: datetime
    update_time: datetime
    expire_time: datetime | None = None
    close_time: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    parent_session_id: UUID | None = None
    fork_sequence: int = 0


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions are listed; None lets all through."""

    agent_id: UUID | None = None
    user_id: str | None = None
    status: SessionStatus | None = None


@dataclass(frozen=True, slots=True)
class SessionPage:
    """One page of a list; the token is empty on the last."""

    sessions: tuple[Session, ...]
    next_page_token: str


def not_found(session_id: UUID) -> NotFound:
    """Makes the error of a session that the caller's tenant hasn't."""
    return NotFound("There is no such session.", reason="SESSION_NOT_FOUND", metadata={"session_id": str(session_id)})


def not_active(session_id: UUID, status: SessionStatus) -> FailedPrecondition:
    """Makes the error of a session that takes nothing any more."""
    return FailedPrecondition(
        f"The session is {status.value}.",
        reason="SESSION_NOT_ACTIVE",
        metadata={"session_id": str(session_id), "status": status.name},
    )
