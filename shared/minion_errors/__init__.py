"""What can go wrong, in the domain's words.

MinionError
├── InvalidArgument      the request is malformed             (violations)
├── Unauthenticated      nobody we know
├── PermissionDenied     known, but not allowed
├── NotFound             no such thing in this tenant
├── AlreadyExists        another thing holds this key, or this request_id another body
├── Aborted              it moved: read again, then retry     (etag, sequence, version)
├── FailedPrecondition   its state forbids it
├── ResourceExhausted    a limit or budget was reached        (retry_after)
├── DeadlineExceeded     out of time
├── Unimplemented        switched off by a setting
└── Unavailable          a dependency is down                 (retry_after)

Which status code and log level each becomes on the wire is `minion_grpc`'s business.
"""

from minion_errors.tree import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    MinionError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
)
from minion_errors.violations import Violations

__all__ = [
    "Aborted",
    "AlreadyExists",
    "DeadlineExceeded",
    "FailedPrecondition",
    "InvalidArgument",
    "MinionError",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "Violations",
]
