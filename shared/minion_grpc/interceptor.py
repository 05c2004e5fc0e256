"""The server's one interceptor: finds a call's method and lets `call.Method` serve it.

OpenTelemetry's aio interceptor is not used: it takes every streaming handler for an async generator (which breaks
`Health.Watch`), leaves the status of cancelled spans open, and records each abort as an exception. The spans made here
carry the same names and attributes. See docs/decisions/0007-rpc-spans.md.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message

from minion_grpc.call import Method, Surroundings, ending_with_the_drain
from minion_grpc.metrics import RpcMetrics, kind_of

# Probes and reflection need no credential and are neither traced nor logged nor counted.
EXEMPT_PREFIXES = ("/grpc.health.v1.", "/grpc.reflection.")

# A string, because the class is generic to type checkers alone.
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_MAKERS: Mapping[str, Callable[..., Any]] = {
    "unary": grpc.unary_unary_rpc_method_handler,
    "server_stream": grpc.unary_stream_rpc_method_handler,
    "client_stream": grpc.stream_unary_rpc_method_handler,
    "bidi_stream": grpc.stream_stream_rpc_method_handler,
}


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps each method of the server once; a method that the server doesn't have is left to gRPC: UNIMPLEMENTED."""

    def __init__(
        self,
        around: Surroundings,
        metrics: RpcMetrics,
        default_deadline: float,
        deadlines: Mapping[str, float | None],
    ) -> None:
        self._around = around
        self._metrics = metrics
        self._default_deadline = default_deadline
        self._deadlines = deadlines
        self._handlers: dict[str, _Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Gives the method's wrapped handler."""
        name = handler_call_details.method
        wrapped = self._handlers.get(name)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        # Unknown names are not remembered, and never become metrics: there is no end of them.
        if handler is None:
            return None
        wrap = self._wrap_exempt if name.startswith(EXEMPT_PREFIXES) else self._wrap
        wrapped = self._handlers[name] = wrap(name, handler)
        return wrapped

    def _wrap(self, name: str, handler: _Handler) -> _Handler:
        service, _, method_name = name[1:].partition("/")
        kind = _kind_of(handler)
        default = None if handler.response_streaming else self._default_deadline
        method = Method(
            name,
            handler,
            self._around,
            self._metrics.method(kind, service, method_name),
            self._deadlines.get(name, default),
        )
        # The handler's style is kept: gRPC iterates generators and awaits coroutines.
        generates = handler.response_streaming and inspect.isasyncgenfunction(method.behaviour)
        wrapped: _Handler = _MAKERS[kind](
            method.stream if generates else method.respond, method.deserialize, _serialize
        )
        return wrapped

    def _wrap_exempt(self, _name: str, handler: _Handler) -> _Handler:
        # Who watches health, or keeps asking for descriptors, never ends by himself either.
        behaviour: Any = handler.unary_stream or handler.stream_stream
        if behaviour is None:
            return handler
        wrapped: _Handler = _MAKERS[_kind_of(handler)](
            ending_with_the_drain(behaviour, self._around), handler.request_deserializer, handler.response_serializer
        )
        return wrapped


def _kind_of(handler: _Handler) -> str:
    return kind_of(request_streaming=handler.request_streaming, response_streaming=handler.response_streaming)


def _serialize(message: Message) -> bytes:
    # Maps in a fixed order: what a run's watchers are sent is the same on every replica, byte for byte.
    return message.SerializeToString(deterministic=True)
