"""Between the contract's sessions and the domain's."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias
from uuid import UUID

from minion.session.v1 import session_pb2, session_service_pb2
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key

from minion_session import requests
from minion_session.sessions.domain import (
    NewSession,
    Session,
    SessionChanges,
    SessionFilter,
    SessionPage,
    SessionStatus,
)

_SHORTEST, _LONGEST = timedelta(seconds=1), timedelta(days=3_650)
_TO_STATUS = {
    SessionStatus.ACTIVE: session_pb2.SESSION_STATUS_ACTIVE,
    SessionStatus.CLOSED: session_pb2.SESSION_STATUS_CLOSED,
    SessionStatus.EXPIRED: session_pb2.SESSION_STATUS_EXPIRED,
    SessionStatus.ARCHIVED: session_pb2.SESSION_STATUS_ARCHIVED,
}
_FROM_STATUS = {number: status for status, number in _TO_STATUS.items()}
_MUTABLE = ("display_name", "metadata")
# Requests that name a session and nothing else.
Named: TypeAlias = (
    session_service_pb2.CloseSessionRequest
    | session_service_pb2.ArchiveSessionRequest
    | session_service_pb2.DeleteSessionRequest
)


@dataclass(frozen=True, slots=True)
class ListRequest:
    """Which page of which list."""

    wanted: SessionFilter
    page_size: int
    page_token: str


def create_from_proto(request: session_service_pb2.CreateSessionRequest) -> tuple[NewSession, Key | None]:
    """Reads what session to open."""
    violations = Violations()
    ttl = time_to_live(request, violations)
    new = NewSession(
        session_id=violations.optional_identifier("session_id", request.session_id),
        agent_id=violations.identifier("agent_id", request.agent_id),
        user_id=violations.length("user_id", request.user_id, minimum=1, maximum=200),
        display_name=violations.length("display_name", request.display_name, maximum=200),
        metadata=requests.json_object(violations, "metadata", request.metadata),
        ttl=ttl,
    )
    key = requests.key(violations, request)
    violations.raise_if_any()
    return new, key


def get_from_proto(request: session_service_pb2.GetSessionRequest) -> UUID:
    """Reads which session is asked for."""
    violations = Violations()
    session_id = violations.identifier("session_id", request.session_id)
    violations.raise_if_any()
    return session_id


def named_from_proto(request: Named) -> tuple[UUID, Key | None]:
    """Reads which session to close, archive or delete."""
    violations = Violations()
    session_id = violations.identifier("session_id", request.session_id)
    key = requests.key(violations, request)
    violations.raise_if_any()
    return session_id, key


def update_from_proto(
    request: session_service_pb2.UpdateSessionRequest,
) -> tuple[UUID, SessionChanges, str, Key | None]:
    """Reads the session, what changes of it, and the etag."""
    violations = Violations()
    session_id = violations.identifier("session.session_id", request.session.session_id)
    paths: frozenset[str] = frozenset()
    if request.update_mask.paths:
        paths = wire.mask_paths(request.update_mask, _MUTABLE, "update_mask", violations)
    else:
        violations.add("update_mask", "is required")
    display_name = metadata = None
    if "display_name" in paths:
        display_name = violations.length("session.display_name", request.session.display_name, maximum=200)
    if "metadata" in paths:
        metadata = requests.json_object(violations, "session.metadata", request.session.metadata)
    key = requests.key(violations, request)
    violations.raise_if_any()
    return session_id, SessionChanges(display_name, metadata), request.etag, key


def extend_from_proto(
    request: session_service_pb2.ExtendSessionRequest,
) -> tuple[UUID, timedelta | None, Key | None]:
    """Reads the session and how long it lives from now on."""
    violations = Violations()
    session_id = violations.identifier("session_id", request.session_id)
    ttl = time_to_live(request, violations)
    key = requests.key(violations, request)
    violations.raise_if_any()
    return session_id, ttl, key


def time_to_live(
    request: session_service_pb2.CreateSessionRequest | session_service_pb2.ExtendSessionRequest,
    violations: Violations,
) -> timedelta | None:
    """Reads how long a session lives: 1 s to 3,650 days, None when it is left open."""
    if not request.HasField("ttl"):
        return None
    ttl = wire.from_duration(request.ttl, "ttl", violations)
    if not _SHORTEST <= ttl <= _LONGEST:
        violations.add("ttl", "must be 1 s to 3,650 days")
    return ttl


def list_from_proto(request: session_service_pb2.ListSessionsRequest) -> ListRequest:
    """Reads which sessions to list."""
    violations = Violations()
    if request.status and request.status not in _FROM_STATUS:
        violations.add("status", f"is no status: {request.status}")
    wanted = SessionFilter(
        agent_id=violations.optional_identifier("agent_id", request.agent_id),
        user_id=violations.length("user_id", request.user_id, maximum=200) or None,
        status=_FROM_STATUS.get(request.status),
    )
    size = requests.page_size(violations, request.page_size, default=50, largest=500)
    violations.raise_if_any()
    return ListRequest(wanted, size, request.page_token)


def page_to_proto(page: SessionPage) -> session_service_pb2.ListSessionsResponse:
    """Writes one page."""
    return session_service_pb2.ListSessionsResponse(
        sessions=[to_proto(session) for session in page.sessions], next_page_token=page.next_page_token
    )


def to_proto(session: Session) -> session_pb2.Session:
    """Writes a session."""
    return session_pb2.Session(
        session_id=str(session.session_id),
        agent_id=str(session.agent_id),
        user_id=session.user_id,
        display_name=session.display_name,
        status=_TO_STATUS[session.status],
        last_sequence=session.last_sequence,
        metadata=wire.to_struct(session.metadata) if session.metadata else None,
        create_time=wire.to_timestamp(session.create_time),
        update_time=wire.to_timestamp(session.update_time),
        expire_time=wire.to_optional_timestamp(session.expire_time),
        close_time=wire.to_optional_timestamp(session.close_time),
        etag=session.etag,
        archive_time=wire.to_optional_timestamp(session.archive_time),
    )
