"""Collectors as operators meet them: one that takes spans, refuses them, hangs, or is not there at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from minion_testing.serving import free_ports
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector(TraceServiceServicer):
    """Takes spans, or answers with `fault`, or hangs."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.fault: grpc.StatusCode | None = None
        self.hangs = False
        self.asked = 0
        self.spans: list[Span] = []
        self.metadata: dict[str, str | bytes] = {}
        self.requests: list[pb.ExportTraceServiceRequest] = []
        self.begun = asyncio.Event()

    async def Export(self, request: pb.ExportTraceServiceRequest, context: Any) -> pb.ExportTraceServiceResponse:
        self.asked += 1
        self.metadata = dict(context.invocation_metadata())
        self.begun.set()
        if self.hangs:
            await asyncio.Event().wait()
        if self.fault is not None:
            await context.abort(self.fault, "not now")
        self.requests.append(request)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return pb.ExportTraceServiceResponse()


@asynccontextmanager
async def collecting(
    port: int | None = None, *, compressed: bool = True, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[Collector]:
    """Runs a collector for a block, on a port that may be given; one that isn't `compressed` takes nothing that is."""
    collector = Collector(free_ports(1)[0] if port is None else port)
    server = grpc.aio.server(options=[] if compressed else [("grpc.compression_enabled_algorithms_bitset", 0b1)])
    add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    address = collector.endpoint.removeprefix("http://")
    if credentials is None:
        server.add_insecure_port(address)
    else:
        collector.endpoint = f"https://{address}"
        server.add_secure_port(address, credentials)
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(None)


async def until(condition: Any, seconds: float = 60) -> None:
    """Waits until a condition holds; fails when it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - a span that has left its thread tells nobody
            await asyncio.sleep(0.02)
