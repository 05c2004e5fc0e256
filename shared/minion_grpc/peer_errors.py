"""Back from the wire: a peer's status and ErrorInfo become errors of the tree."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import grpc
from google.protobuf.message import DecodeError
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
    Unavailable,
    Unimplemented,
    Violation,
)

from minion_grpc.error_table import DETAILS_KEY

_PLAIN: dict[grpc.StatusCode, type[MinionError]] = {
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
}
_RETRY_AFTER = timedelta(seconds=1)


@contextmanager
def peer_call(service: str) -> Iterator[None]:
    """Turns gRPC errors of calls to a service inside the block into errors of the tree."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise translate(error, service) from error


def translate(error: grpc.aio.AioRpcError, service: str) -> MinionError:
    """Gives the error of the tree that a peer's answer stands for.

    What says nothing about the caller's request (the peer is down, failed inside, or refused our own credential) is
    Unavailable with the reason PEER_UNAVAILABLE.
    """
    code, message = error.code(), error.details() or ""
    info, violations, retry_after = _details(error)
    reason, metadata = info.reason, dict(info.metadata)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidArgument(message, reason=reason or "INVALID_FIELDS", metadata=metadata, violations=violations)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ResourceExhausted(
            message, reason=reason or "RESOURCE_EXHAUSTED", metadata=metadata, retry_after=retry_after
        )
    kind = _PLAIN.get(code)
    if kind is not None:
        return kind(message, reason=reason or code.name, metadata=metadata)
    return Unavailable(
        f"The service {service} can't be reached or failed.",
        reason="PEER_UNAVAILABLE",
        metadata={"service": service, "cause": reason or code.name},
        retry_after=retry_after or _RETRY_AFTER,
    )


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Gives `ErrorInfo.reason`, or the empty text where the peer gave none."""
    return str(_details(error)[0].reason)


def metadata_of(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """Gives `ErrorInfo.metadata` by name, empty where the peer gave none."""
    return dict(sorted(_details(error)[0].metadata.items()))


def blames_the_key(error: grpc.aio.AioRpcError) -> bool:
    """Tells whether UNAUTHENTICATED is about the key that was asked about, and not about the token we asked with."""
    info = _details(error)[0]
    return bool(info.reason == "CREDENTIAL_INVALID" and info.metadata.get("credential") != "service_token")


def details_of(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    """Gives the `google.rpc.Status` that the peer sent along, or None."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _details(
    error: grpc.aio.AioRpcError,
) -> tuple[error_details_pb2.ErrorInfo, list[Violation], timedelta | None]:
    info = error_details_pb2.ErrorInfo()
    violations: list[Violation] = []
    retry_after: timedelta | None = None
    status = details_of(error)
    for detail in status.details if status is not None else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad_request = error_details_pb2.BadRequest()
            detail.Unpack(bad_request)
            violations.extend(Violation(found.field, found.description) for found in bad_request.field_violations)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after = retry.retry_delay.ToTimedelta()
    return info, violations, retry_after
