"""Between the contract's clean-ups and the domain's."""

from minion.session.v1 import session_service_pb2 as pb
from minion_errors import Violations

from minion_session.expiry.domain import Cleaned

_DEFAULT, _MOST = 1_000, 10_000


def limit_from_proto(request: pb.CleanupExpiredSessionsRequest) -> int:
    """Reads how many sessions to clean up at most: 1 to 10,000; 0 means 1,000."""
    violations = Violations()
    violations.between("limit", request.limit, minimum=0, maximum=_MOST)
    violations.raise_if_any()
    return request.limit or _DEFAULT


def to_proto(cleaned: Cleaned) -> pb.CleanupExpiredSessionsResponse:
    """Writes what was cleaned up."""
    return pb.CleanupExpiredSessionsResponse(expired_count=cleaned.expired, deleted_count=cleaned.deleted)
