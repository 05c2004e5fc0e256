"""The `__main__` of every service: settings, logs, telemetry, event loop, signals, drain."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import NoReturn, TypeVar

import structlog
from minion_errors import MinionError
from minion_settings import SettingsError, unknown
from minion_telemetry import OperationsServer, Telemetry, configure_logging

from minion_grpc.collector import spare_calls
from minion_grpc.heap import keep_freed
from minion_grpc.server import Server
from minion_grpc.settings import ServerSettings

_S = TypeVar("_S", bound=ServerSettings)
Compose = Callable[[_S, Telemetry], AbstractAsyncContextManager[Server]]


def run(settings_class: type[_S], compose: Compose[_S]) -> NoReturn:
    """Runs a service until SIGTERM or SIGINT, then drains it.

    Exits with 0 after a drain, 1 when the service could not start (one log line says why), 2 when the settings are
    wrong (standard error lists every fault).
    """
    # Programs are started beside a running gRPC, whose fork handlers crash such a child now and then (1.85.1).
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    try:
        settings = settings_class.load()
    except SettingsError as fault:
        sys.stderr.write(f"{fault}\n")
        sys.exit(2)
    configure_logging(settings.log_level, settings.log_format)
    for found in unknown(settings_class, os.environ):
        structlog.get_logger().warning(
            "unknown setting", service=settings.service, variable=found.variable, nearest=found.nearest
        )
    with asyncio.Runner(loop_factory=loop_factory(settings.event_loop)) as runner:
        code = runner.run(_serve(settings, compose))
    sys.exit(code)


def loop_factory(event_loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Gives the factory of the event loop that the settings ask for; None is asyncio's own."""
    if event_loop != "uvloop" or sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - absent on Windows, and not wanted by everybody

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _serve(settings: _S, compose: Compose[_S]) -> int:
    log = structlog.get_logger()
    stop = asyncio.Event()
    _stop_on_signals(stop)
    if settings.parent_pipe is not None:
        _stop_with_parent(settings.parent_pipe, stop)
    telemetry = Telemetry.start(settings.service, settings)
    try:
        async with compose(settings, telemetry) as server:
            operations = OperationsServer(
                settings.operations_host,
                settings.operations_port,
                telemetry.registry if settings.metrics_enabled else None,
                lambda: server.ready,
                lambda: server.addresses,
            )
            operations.start()
            try:
                await server.start()
                spare_calls()
                keep_freed()
                await stop.wait()
            finally:
                await server.drain_and_stop()
                await asyncio.to_thread(operations.stop)
    except MinionError as fault:
        log.error(
            "the service can't run",
            service=settings.service,
            error=str(fault),
            reason=fault.reason,
            **fault.metadata,
        )
        return 1
    finally:
        await asyncio.to_thread(telemetry.shutdown)
    return 0


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


def _stop_with_parent(descriptor: int, stop: asyncio.Event) -> None:
    # A killed parent sends no signal; its end of the pipe closes all the same.
    loop = asyncio.get_running_loop()

    def closed() -> None:
        if not os.read(descriptor, 1):
            loop.remove_reader(descriptor)
            stop.set()

    loop.add_reader(descriptor, closed)
