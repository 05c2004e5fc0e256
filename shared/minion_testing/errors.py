"""Asserting a refusal: by status and by reason, never by its text."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2
from minion_grpc import peer_errors


@dataclass
class Refusal:
    """What the refused call was told; filled in when the block is over."""

    message: str = ""
    domain: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)
    retry_after_seconds: float | None = None


@asynccontextmanager
async def refused(code: grpc.StatusCode, reason: str) -> AsyncIterator[Refusal]:
    """Asserts that a call inside the block ends with this status and this `ErrorInfo.reason`."""
    refusal = Refusal()
    try:
        yield refusal
    except grpc.aio.AioRpcError as error:
        found = (error.code(), peer_errors.reason_of(error))
        if found != (code, reason):
            raise AssertionError(f"refused with {found[0].name}/{found[1]}: {error.details()}") from error
        _fill(refusal, error)
        return
    raise AssertionError(f"nothing was refused, {code.name}/{reason} was expected")


def _fill(refusal: Refusal, error: grpc.aio.AioRpcError) -> None:
    refusal.message = error.details() or ""
    status = peer_errors.details_of(error)
    for detail in status.details if status is not None else ():
        info, bad_request, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        if detail.Unpack(info):
            refusal.domain = info.domain
            refusal.metadata = dict(info.metadata)
        elif detail.Unpack(bad_request):
            refusal.violations = {found.field: found.description for found in bad_request.field_violations}
        elif detail.Unpack(retry):
            refusal.retry_after_seconds = retry.retry_delay.ToTimedelta().total_seconds()
