"""The interceptors of outgoing calls: trace, deadline and identity travel on, and cancellation reaches the peer.

The trace is OpenTelemetry's interceptors', the rest ours; gRPC takes one class an arity, and all four share an
`Outgoing`. Ours are innermost: OpenTelemetry's await `call.code()`, which keeps a cancellation from the call itself,
and the peer would run to its end.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from minion_auth import ServiceTokens
from minion_auth import identity as identities
from minion_telemetry import Telemetry
from opentelemetry.instrumentation.grpc import aio_client_interceptors

from minion_grpc import deadline

_Continuation = Callable[[grpc.aio.ClientCallDetails, Any], Any]


class Outgoing:
    """What every call of a channel carries."""

    def __init__(self, telemetry: Telemetry, tokens: ServiceTokens | None, credential: str | None) -> None:
        self._tracing: list[grpc.aio.ClientInterceptor] = aio_client_interceptors(  # type: ignore[no-untyped-call]
            telemetry.tracer_provider
        )
        self._tokens = tokens
        self._credential = None if credential is None else f"Bearer {credential}"

    async def unary(self, continuation: _Continuation, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        """Makes a call with one response and waits for its end."""
        call = await continuation(self._carrying(details), request)
        try:
            await call.code()
        except asyncio.CancelledError:
            call.cancel()
            raise
        return call

    async def stream(self, continuation: _Continuation, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        """Makes a call with a stream of responses."""
        return await continuation(self._carrying(details), request)

    def _carrying(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
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
        """Gives OpenTelemetry's interceptors, then ours: one of each an arity."""
        return [*self._tracing, _UnaryUnary(self), _UnaryStream(self), _StreamUnary(self), _StreamStream(self)]


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
