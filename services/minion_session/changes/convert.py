"""Between the contract's changes and the domain's."""

from minion.session.v1 import session_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_grpc import wire

from minion_session.changes.domain import SessionChange, SessionChangeKind

_TO_KIND = {
    SessionChangeKind.SYNCED: session_pb2.SESSION_CHANGE_KIND_SYNCED,
    SessionChangeKind.CREATED: session_pb2.SESSION_CHANGE_KIND_CREATED,
    SessionChangeKind.UPDATED: session_pb2.SESSION_CHANGE_KIND_UPDATED,
    SessionChangeKind.ACTIVE: session_pb2.SESSION_CHANGE_KIND_ACTIVE,
    SessionChangeKind.CLOSED: session_pb2.SESSION_CHANGE_KIND_CLOSED,
    SessionChangeKind.EXPIRED: session_pb2.SESSION_CHANGE_KIND_EXPIRED,
    SessionChangeKind.ARCHIVED: session_pb2.SESSION_CHANGE_KIND_ARCHIVED,
    SessionChangeKind.DELETED: session_pb2.SESSION_CHANGE_KIND_DELETED,
}


def to_proto(change: SessionChange) -> pb.WatchSessionsResponse:
    """Writes one change."""
    return pb.WatchSessionsResponse(
        cursor=change.cursor,
        kind=_TO_KIND[change.kind],
        session_id=wire.optional_text(change.session_id),
        tenant_id=wire.optional_text(change.tenant_id),
        create_time=wire.to_optional_timestamp(change.create_time),
    )
