"""The one table from domain errors to what a client sees and how loud the log is."""

from dataclasses import dataclass
from urllib.parse import quote

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2
from minion_errors import (
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
)

DETAILS_KEY = "grpc-status-details-bin"
INTERNAL_MESSAGE = "Internal error: the service's log has the details under this trace id."


@dataclass(frozen=True, slots=True)
class Row:
    """How one kind of error is answered and logged."""

    code: grpc.StatusCode
    level: str


TABLE: dict[type[MinionError], Row] = {
    InvalidArgument: Row(grpc.StatusCode.INVALID_ARGUMENT, "info"),
    Unauthenticated: Row(grpc.StatusCode.UNAUTHENTICATED, "info"),
    PermissionDenied: Row(grpc.StatusCode.PERMISSION_DENIED, "warning"),
    NotFound: Row(grpc.StatusCode.NOT_FOUND, "info"),
    AlreadyExists: Row(grpc.StatusCode.ALREADY_EXISTS, "info"),
    Aborted: Row(grpc.StatusCode.ABORTED, "info"),
    FailedPrecondition: Row(grpc.StatusCode.FAILED_PRECONDITION, "info"),
    ResourceExhausted: Row(grpc.StatusCode.RESOURCE_EXHAUSTED, "warning"),
    DeadlineExceeded: Row(grpc.StatusCode.DEADLINE_EXCEEDED, "warning"),
    Unimplemented: Row(grpc.StatusCode.UNIMPLEMENTED, "info"),
    Unavailable: Row(grpc.StatusCode.UNAVAILABLE, "warning"),
}
_INTERNAL = Row(grpc.StatusCode.INTERNAL, "error")

# Status and details travel in HTTP/2 trailers, of which many clients take 8 KiB; base64 adds a third.
_MAXIMUM_MESSAGE_BYTES = 1_000
_MAXIMUM_STATUS_BYTES = 4_500
# What gRPC writes into the message's trailer as it is; any other byte takes three.
_AS_IT_IS = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_MAXIMUM_DESCRIPTION_CHARACTERS = 300


def row_of(error: MinionError) -> Row:
    """Gives the row of an error's class, or of the nearest class above it."""
    for kind in type(error).__mro__:
        row = TABLE.get(kind)
        if row is not None:
            return row
    return _INTERNAL


def details_of(error: MinionError, code: grpc.StatusCode, domain: str) -> bytes:
    """Serializes `google.rpc.Status` with ErrorInfo, BadRequest for violations and RetryInfo for waits.

    Violations that would not fit into the trailers are left out, from the end, and `violations_omitted` counts them.
    """
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=domain, metadata=error.metadata)
    message = message_of(error)
    status = status_pb2.Status(code=code.value[0], message=message)
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(retry_after)
        status.details.append(_any(retry))
    violations = error.violations if isinstance(error, InvalidArgument) else ()
    if violations:
        bad_request = error_details_pb2.BadRequest()
        escapes = len(quote(message, safe=_AS_IT_IS)) - len(message.encode())
        room = _MAXIMUM_STATUS_BYTES - escapes * 3 // 4 - status.ByteSize() - info.ByteSize()
        for shown, violation in enumerate(violations):
            field = bad_request.field_violations.add()
            field.field = violation.field[:_MAXIMUM_DESCRIPTION_CHARACTERS]
            field.description = violation.description[:_MAXIMUM_DESCRIPTION_CHARACTERS]
            if shown and bad_request.ByteSize() > room:
                del bad_request.field_violations[-1]
                info.metadata["violations_omitted"] = str(len(violations) - shown)
                break
        status.details.append(_any(bad_request))
    status.details.insert(0, _any(info))
    return bytes(status.SerializeToString())


def internal_details(domain: str, trace_id: str) -> bytes:
    """Serializes the details of an unmapped exception: nothing of the exception, and where to look for it."""
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=domain, metadata={"trace_id": trace_id})
    status = status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0], message=INTERNAL_MESSAGE, details=[_any(info)])
    return bytes(status.SerializeToString())


def message_of(error: MinionError) -> str:
    """Gives the error's message, cut to what trailers hold."""
    encoded = error.message.encode()
    if len(encoded) <= _MAXIMUM_MESSAGE_BYTES:
        return error.message
    return encoded[:_MAXIMUM_MESSAGE_BYTES].decode(errors="ignore") + "…"


def _any(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed
