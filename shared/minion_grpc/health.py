"""The standard health service: which services are served, and until when.

gRPC's own holds a lock while it writes to a watcher, which the end of serving waits for: a watcher that reads nothing
would hold up the drain for ever (grpcio-health-checking 1.85.1).
"""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_Context = grpc.aio.ServicerContext[Any, Any]
_Status = int  # of the enum ServingStatus


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it comes without types
    """Health of the services of one server; the empty name stands for the whole."""

    def __init__(self) -> None:
        self._statuses: dict[str, _Status] = {"": health_pb2.HealthCheckResponse.SERVING}
        self._changed = asyncio.Event()

    def serve(self, service: str) -> None:
        """Reports a service as SERVING."""
        self._statuses[service] = health_pb2.HealthCheckResponse.SERVING
        self._tell()

    def stop(self) -> None:
        """Reports all as NOT_SERVING; waits for nobody."""
        self._statuses = dict.fromkeys(self._statuses, health_pb2.HealthCheckResponse.NOT_SERVING)
        self._tell()

    async def Check(  # noqa: N802 - the contract's name
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> health_pb2.HealthCheckResponse:
        """Gives a service's status; NOT_FOUND for one that is none."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802 - the contract's name
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> None:
        """Writes a service's status, and again whenever it is another; those in between may be left out."""
        last: _Status | None = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            if status == last:
                await changed.wait()
                continue
            await context.write(health_pb2.HealthCheckResponse(status=status))
            last = status

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
