"""The interceptor of outgoing calls: trace, deadline and identity travel on, and cancellation reaches the peer.

gRPC takes one class an arity; all four share an `Outgoing`. It must be innermost: an interceptor that awaits
`call.code()` (OpenTelemetry's does) keeps a cancellation from the call itself, and the peer would run to its end.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from minion_auth import ServiceTokens
from minion_auth import identity as identities
from minion_telemetry import Telemetry
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from minion_grpc import deadline, propagation

_Continuation = Callable[[grpc.aio.ClientCallDetails, Any], Any]


class Outgoing:
    """What every call of a channel carries."""

    def __init__(self, telemetry: Telemetry, tokens: ServiceTokens | None, credential: str | None) -> None:
        self._tracer = telemetry.tracer_provider.get_tracer("minion.grpc")
        self._tokens = tokens
        self._credential = None if credential is None else f"Bearer {credential}"
        self._attributes: dict[str, dict[str, str]] = {}
        self._finishing: set[asyncio.Task[None]] = set()

    async def unary(self, continuation: _Continuation, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        """Makes a call with one response and waits for its end."""
        span, method, details = self._enter(details)
        call = await continuation(details, request)
        code = grpc.StatusCode.CANCELLED
        try:
            code = await call.code()
        except asyncio.CancelledError:
            call.cancel()
            raise
        finally:
            self._finish(span, method, code)
        return call

    async def stream(self, continuation: _Continuation, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        """Makes a call with a stream of responses; its span ends when the stream does."""
        span, method, details = self._enter(details)
        call = await continuation(details, request)

        async def finish() -> None:
            self._finish(span, method, await call.code())

        def ended(_: object) -> None:
            task = asyncio.get_running_loop().create_task(finish())
            self._finishing.add(task)
            task.add_done_callback(self._finishing.discard)

        call.add_done_callback(ended)
        return call

    def _enter(self, details: grpc.aio.ClientCallDetails) -> tuple[Span, str, grpc.aio.ClientCallDetails]:
        timeout = deadline.passed_on(details.timeout)
        # grpc.aio hands the method over as bytes (https://github.com/grpc/grpc/issues/31092).
        method = details.method.decode() if isinstance(details.method, bytes) else details.method
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        if metadata.get("authorization") is None:
            authorization = self._authorization()
            if authorization is not None:
                metadata.add("authorization", authorization)
        span = self._tracer.start_span(method, kind=SpanKind.CLIENT, record_exception=False)
        for key, value in propagation.inject(span):
            metadata[key] = value
        outgoing = grpc.aio.ClientCallDetails(
            details.method, timeout, metadata, details.credentials, details.wait_for_ready
        )
        return span, method, outgoing

    def _authorization(self) -> str | None:
        if self._credential is not None:
            return self._credential
        if self._tokens is None:
            return None
        identity = identities.current()
        token = self._tokens.mint() if identity is None else self._tokens.mint(identity.tenant_id, identity.origin)
        return f"Bearer {token}"

    def _finish(self, span: Span, method: str, code: grpc.StatusCode) -> None:
        if span.is_recording():
            span.set_attributes({**self._attributes_of(method), "rpc.grpc.status_code": code.value[0]})
            if code is not grpc.StatusCode.OK:
                span.set_status(Status(StatusCode.ERROR, code.name))
        span.end()

    def _attributes_of(self, method: str) -> dict[str, str]:
        found = self._attributes.get(method)
        if found is None:
            service, _, name = method.lstrip("/").partition("/")
            found = self._attributes[method] = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        return found

    def interceptors(self) -> list[grpc.aio.ClientInterceptor]:
        """Gives one interceptor an arity."""
        return [_UnaryUnary(self), _UnaryStream(self), _StreamUnary(self), _StreamStream(self)]


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
