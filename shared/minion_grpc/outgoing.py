"""The interceptors of outgoing calls: trace, deadline and identity travel on, and cancellation reaches the peer.

gRPC takes one class an arity, and all four share an `Outgoing`. It makes the span too, where it is not told that
somebody else does: OpenTelemetry's interceptors cost more, see docs/decisions/0007-rpc-spans.md.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from minion_auth import ServiceTokens
from minion_auth import identity as identities
from minion_errors import MinionError
from minion_telemetry import Telemetry, attributes
from opentelemetry.instrumentation.grpc import aio_client_interceptors
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode

from minion_grpc import deadline, error_table, propagation

_Continuation = Callable[[grpc.aio.ClientCallDetails, Any], Any]

_OK = grpc.StatusCode.OK
_CANCELLED = grpc.StatusCode.CANCELLED


class Outgoing:
    """What every call of a channel to `address` carries.

    `instrumented` leaves the spans to OpenTelemetry's interceptors around ours, which then know no span of their own.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        tokens: ServiceTokens | None,
        credential: str | None,
        *,
        address: str,
        instrumented: bool = False,
    ) -> None:
        self._telemetry = telemetry
        self._tracer = telemetry.tracer
        self._instrumented = instrumented
        self._tokens = tokens
        self._credential = None if credential is None else f"Bearer {credential}"
        self._attributes: dict[str, str | int] = {attributes.RPC_SYSTEM_NAME: "grpc", **_server(address)}

    async def unary(self, continuation: _Continuation, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        """Makes a call with one response and waits for its end."""
        span = self._start(details)
        code = _CANCELLED
        try:
            call = await continuation(self._carrying(details, span), request)
            try:
                code = await call.code()
            except asyncio.CancelledError:
                call.cancel()
                raise
            return call
        except Exception as fault:
            code = _code_of(fault)
            raise
        finally:
            self._end(span, details, code)

    async def stream(self, continuation: _Continuation, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        """Makes a call with a stream of responses; its span ends with them."""
        span = self._start(details)
        try:
            call = await continuation(self._carrying(details, span), request)
        except BaseException as fault:
            self._end(span, details, _code_of(fault))
            raise
        if span.is_recording():
            # Whether its responses are read to the end, broken off or forgotten: the call ends, and its span with it.
            call.add_done_callback(lambda ended: self._end(span, details, _code_of_ended(ended)))
        return call

    def _start(self, details: grpc.aio.ClientCallDetails) -> Span:
        if self._instrumented:
            return INVALID_SPAN
        # Its attributes are set in one go at the end, as the server's.
        return self._tracer.start_span(_name(details), kind=SpanKind.CLIENT, record_exception=False)

    def _end(self, span: Span, details: grpc.aio.ClientCallDetails, code: grpc.StatusCode) -> None:
        if not span.is_recording():
            return
        found = {
            **self._attributes,
            attributes.RPC_METHOD: _name(details)[1:],
            attributes.RPC_RESPONSE_STATUS_CODE: code.name,
        }
        if code is not _OK:
            found[attributes.ERROR_TYPE] = code.name
            # The peer's message may hold what the caller said: its code can't.
            span.set_status(Status(StatusCode.ERROR, code.name))
        span.set_attributes(found)
        span.end()

    def _carrying(self, details: grpc.aio.ClientCallDetails, span: Span) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        propagation.inject(metadata, span)
        if metadata.get("authorization") is None:
            authorization = self._authorization()
            if authorization is not None:
                metadata.add("authorization", authorization)
        return grpc.aio.ClientCallDetails(
            details.method,
            deadline.passed_on(details.timeout),
            metadata,
            details.credentials,
            details.wait_for_ready,
        )

    def _authorization(self) -> str | None:
        if self._credential is not None:
            return self._credential
        if self._tokens is None:
            return None
        identity = identities.current()
        token = self._tokens.mint() if identity is None else self._tokens.mint(identity.tenant_id, identity.origin)
        return f"Bearer {token}"

    def interceptors(self) -> list[grpc.aio.ClientInterceptor]:
        """Gives one of each arity; where spans are OpenTelemetry's, its own stand around ours.

        They await `call.code()`, which keeps a cancellation from the call itself, and the peer would run to its end.
        """
        theirs: list[grpc.aio.ClientInterceptor] = []
        if self._instrumented:
            theirs = aio_client_interceptors(self._telemetry.tracer_provider)  # type: ignore[no-untyped-call]
        return [*theirs, _UnaryUnary(self), _UnaryStream(self), _StreamUnary(self), _StreamStream(self)]


def _name(details: grpc.aio.ClientCallDetails) -> str:
    # Annotated as text, bytes in fact (grpc#31092).
    method: str | bytes = details.method
    return method.decode() if isinstance(method, bytes) else method


def _code_of(fault: BaseException) -> grpc.StatusCode:
    if isinstance(fault, grpc.aio.AioRpcError):
        return fault.code()
    if isinstance(fault, MinionError):
        # No time was left to call.
        return error_table.row_of(fault).code
    return grpc.StatusCode.UNKNOWN if isinstance(fault, Exception) else _CANCELLED


def _code_of_ended(call: Any) -> grpc.StatusCode:
    """Asks a call that has ended for its code: it need not be waited for."""
    asking = call.code().__await__()
    try:
        next(asking)
    except StopIteration as answer:
        code: grpc.StatusCode = answer.value
        return code
    asking.close()
    return grpc.StatusCode.UNKNOWN


def _server(address: str) -> dict[str, str | int]:
    """Names the peer: its host and port; a target of another scheme stands as it is."""
    target = address.removeprefix("dns:").lstrip("/")
    host, _, port = target.rpartition(":")
    if not host or not port.isdigit():
        return {attributes.SERVER_ADDRESS: target}
    return {attributes.SERVER_ADDRESS: host.strip("[]"), attributes.SERVER_PORT: int(port)}


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._outgoing.unary(continuation, client_call_details, request)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._outgoing.stream(continuation, client_call_details, request)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._outgoing.unary(continuation, client_call_details, request_iterator)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._outgoing.stream(continuation, client_call_details, request_iterator)
