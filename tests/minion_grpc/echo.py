"""A service for tests of the serving itself, described here and registered as generated code would do it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from minion_auth import CallerKind, Rule

SERVICE = "minion.test.v1.EchoService"

_STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
_MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
_SINGLE = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL


def _describe() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="minion/test/v1/echo_service.proto", package="minion.test.v1", syntax="proto3"
    )
    request = file.message_type.add(name="EchoRequest")
    request.field.add(name="text", number=1, type=_STRING, label=_SINGLE)
    request.field.add(name="request_id", number=2, type=_STRING, label=_SINGLE)
    request.field.add(name="child", number=3, type=_MESSAGE, label=_SINGLE, type_name=".minion.test.v1.EchoRequest")
    file.message_type.add(name="EchoResponse").field.add(name="text", number=1, type=_STRING, label=_SINGLE)
    service = file.service.add(name="EchoService")
    for name, streams_in, streams_out in (
        ("Echo", False, False),
        ("Split", False, True),
        ("Write", False, True),
        ("Join", True, False),
        ("Chat", True, True),
        ("WatchEcho", False, True),
        ("Secret", False, False),
    ):
        service.method.add(
            name=name,
            input_type=".minion.test.v1.EchoRequest",
            output_type=".minion.test.v1.EchoResponse",
            client_streaming=streams_in,
            server_streaming=streams_out,
        )
    pool = descriptor_pool.Default()
    pool.Add(file)
    return pool.FindFileByName(file.name)


FILE = _describe()
DESCRIPTOR = FILE.services_by_name["EchoService"]
EchoRequest: Any = message_factory.GetMessageClass(FILE.message_types_by_name["EchoRequest"])
EchoResponse: Any = message_factory.GetMessageClass(FILE.message_types_by_name["EchoResponse"])

RULES = {
    f"/{SERVICE}/{method.name}": Rule(
        "echo.secret" if method.name == "Secret" else "echo.use",
        frozenset({CallerKind.OPERATOR}) if method.name == "Secret" else frozenset(CallerKind),
    )
    for method in DESCRIPTOR.methods
}

Behaviour = Callable[[Any, Any], Awaitable[str]]


async def repeat(request: Any, _: Any) -> str:
    """Answers with the request's own text."""
    return str(request.text)


class EchoServicer:
    """Serves the echo service; `behave` is what its handlers do with a request."""

    def __init__(self, behave: Behaviour = repeat) -> None:
        self.behave = behave
        self.ended: list[str] = []

    async def Echo(self, request: Any, context: Any) -> Any:
        return EchoResponse(text=await self.behave(request, context))

    async def Secret(self, request: Any, context: Any) -> Any:
        return EchoResponse(text="secret")

    async def Split(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            for word in (await self.behave(request, context)).split():
                yield EchoResponse(text=word)
        finally:
            self.ended.append("Split")

    async def Write(self, request: Any, context: Any) -> None:
        for word in (await self.behave(request, context)).split():
            await context.write(EchoResponse(text=word))

    async def Join(self, requests: AsyncIterator[Any], context: Any) -> Any:
        return EchoResponse(text=" ".join([await self.behave(request, context) async for request in requests]))

    async def Chat(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield EchoResponse(text=await self.behave(request, context))

    async def WatchEcho(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            yield EchoResponse(text="watching")
            await self.behave(request, context)
        finally:
            self.ended.append("WatchEcho")


def add_echo_servicer_to_server(servicer: EchoServicer, server: grpc.aio.Server) -> None:
    """Registers the servicer as generated code does."""
    kinds: dict[tuple[bool, bool], Any] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    handlers = {
        method.name: kinds[method.client_streaming, method.server_streaming](
            getattr(servicer, method.name),
            request_deserializer=EchoRequest.FromString,
            response_serializer=EchoResponse.SerializeToString,
        )
        for method in DESCRIPTOR.methods
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)


class EchoStub:
    """Calls the echo service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        kinds: dict[tuple[bool, bool], Any] = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, False): channel.stream_unary,
            (True, True): channel.stream_stream,
        }
        for method in DESCRIPTOR.methods:
            call = kinds[method.client_streaming, method.server_streaming](
                f"/{SERVICE}/{method.name}",
                request_serializer=EchoRequest.SerializeToString,
                response_deserializer=EchoResponse.FromString,
            )
            setattr(self, method.name, call)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)
