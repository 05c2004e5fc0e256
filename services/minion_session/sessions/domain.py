"""A session: a conversation between one user and one agent."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from minion_errors import Aborted, FailedPrecondition, NotFound


class SessionStatus(enum.Enum):
    """Where a session is in its life. The database tells, by its own clock."""

    ACTIVE = "active"
    CLOSED = "closed"  # terminal, but a run that had begun may still append
    EXPIRED = "expired"
    ARCHIVED = "archived"  # terminal


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
    archive_time: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1  # of what callers change; appends don't move it

    @property
    def etag(self) -> str:
        """What a caller sends back to say which version was read."""
        return str(self.version)

    def check_etag(self, etag: str) -> None:
        """Raises Aborted (ETAG_MISMATCH) when the caller read another version; the empty etag asks for no check."""
        if etag and etag != self.etag:
            raise Aborted(
                "The session changed since it was read.",
                reason="ETAG_MISMATCH",
                metadata={"session_id": str(self.session_id), "etag": self.etag},
            )

    def check_status(self, *allowed: SessionStatus, wanted: str) -> None:
        """Raises FailedPrecondition (SESSION_STATUS_FORBIDS) unless the status is one of those allowed."""
        if self.status not in allowed:
            raise FailedPrecondition(
                f"The session is {self.status.value}.",
                reason="SESSION_STATUS_FORBIDS",
                metadata={"session_id": str(self.session_id), "status": self.status.name, "wanted": wanted},
            )


@dataclass(frozen=True, slots=True)
class SessionChanges:
    """New values of what callers may change; None leaves a value as it is."""

    display_name: str | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class LockedSession:
    """A session that nobody else changes for now, and the run that holds it."""

    session: Session
    holder: UUID | None


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


def held(session_id: UUID, run_id: UUID) -> FailedPrecondition:
    """Makes the error of a session that a run holds."""
    return FailedPrecondition(
        "A run holds the session.",
        reason="SESSION_HELD",
        metadata={"session_id": str(session_id), "run_id": str(run_id)},
    )
