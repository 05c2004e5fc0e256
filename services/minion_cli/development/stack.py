"""All five services in this process, each by its own `compose`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final

import minion_activity.__main__ as activity
import minion_gateway.__main__ as gateway
import minion_memory.__main__ as memory
import minion_registry.__main__ as registry
import minion_session.__main__ as session
from minion_activity.settings import ActivitySettings
from minion_gateway.settings import GatewaySettings
from minion_grpc import Server, ServerSettings
from minion_memory.settings import MemorySettings
from minion_registry.settings import RegistrySettings
from minion_session.settings import SessionSettings
from minion_telemetry import OperationsServer, Telemetry
from opentelemetry.sdk.trace.export import SpanExporter

from minion_cli.loading import load

_Compose = Callable[[Any, Telemetry], AbstractAsyncContextManager[Server]]

# Who is called stands before who calls: services start in this order, and stop in the opposite one.
_SERVICES: Final[Sequence[tuple[type[ServerSettings], _Compose]]] = (
    (RegistrySettings, registry.compose),
    (SessionSettings, session.compose),
    (ActivitySettings, activity.compose),
    (MemorySettings, memory.compose),
    (GatewaySettings, gateway.compose),
)


@asynccontextmanager
async def serving(
    environ: Mapping[str, str], *, span_exporters: Sequence[SpanExporter] = ()
) -> AsyncIterator[Mapping[str, Telemetry]]:
    """Runs the five services for a block and drains them after it; gives each one's telemetry.

    Raises FailedPrecondition when settings are wrong, and whatever a service's start raises.
    """
    telemetries: dict[str, Telemetry] = {}
    async with AsyncExitStack() as running:
        # Last, and together: a collector that hangs takes seconds of each.
        running.push_async_callback(_shut_down, telemetries)
        for settings, compose in [(load(kind, environ), compose) for kind, compose in _SERVICES]:
            telemetry = Telemetry.start(settings.service, settings, span_exporters=span_exporters)
            telemetries[settings.service] = telemetry
            server = await running.enter_async_context(compose(settings, telemetry))
            operations = OperationsServer(
                settings.operations_host,
                settings.operations_port,
                telemetry.registry if settings.metrics_enabled else None,
                *_told(server),
            )
            operations.start()
            running.push_async_callback(asyncio.to_thread, operations.stop)
            running.push_async_callback(server.drain_and_stop)
            await server.start()
        yield telemetries


async def _shut_down(telemetries: Mapping[str, Telemetry]) -> None:
    await asyncio.gather(*(asyncio.to_thread(telemetry.shutdown) for telemetry in telemetries.values()))


def _told(server: Server) -> tuple[Callable[[], bool], Callable[[], Mapping[str, str]]]:
    return lambda: server.ready, lambda: server.addresses
