"""From a directory to a stack that serves: secrets, database, services, seed, and the word where it all answers."""

import importlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minion_errors import Unavailable

from minion_cli.development import database
from minion_cli.development.directory import Credentials, Directory, Stack
from minion_cli.development.environment import environment
from minion_cli.development.ports import Ports, check

if TYPE_CHECKING:
    from minion_telemetry import Telemetry
    from opentelemetry.sdk.trace.export import SpanExporter

    from minion_cli.development.processes import Child


@dataclass(frozen=True, slots=True)
class Launched:
    """A stack that serves. `telemetries` is empty, and `children` is not, where each service has a process."""

    credentials: Credentials
    stack: Stack
    environ: Mapping[str, str]
    telemetries: "Mapping[str, Telemetry]"
    children: "Sequence[Child]"


@asynccontextmanager
async def launched(
    directory: Directory,
    *,
    ports: Mapping[str, Ports],
    environ: Mapping[str, str],
    processes: bool = False,
    span_exporters: "Sequence[SpanExporter]" = (),
) -> AsyncIterator[Launched]:
    """Runs a stack for a block: everything stops in order after it, and its data stays.

    Raises MinionError with what is wrong: a port in use, a database that isn't fit, wrong settings.
    """
    directory.prepare()
    credentials = directory.credentials()
    validation_module = importlib.import_module("minion_cli.development.validation")
    validation_module.check(environ, directory=directory, credentials=credentials, ports=ports)
    _check_ports(directory, ports)
    async with AsyncExitStack() as running:
        found = await running.enter_async_context(
            database.prepared(environ, directory.postgres, credentials.database_password)
        )
        settings = environment(environ, directory=directory, credentials=credentials, ports=ports, database=found)
        addresses = {service: f"127.0.0.1:{pair.rpc}" for service, pair in ports.items()}
        operations = {service: f"127.0.0.1:{pair.operations}" for service, pair in ports.items()}
        telemetries: Mapping[str, Telemetry] = {}
        children: Sequence[Child] = ()
        if processes:
            processes_module = importlib.import_module("minion_cli.development.processes")
            children = await running.enter_async_context(processes_module.serving(settings, ports, directory))
        else:
            # Imported here: the five services bring seconds of libraries along, which `--processes` never needs.
            stack_module = importlib.import_module("minion_cli.development.stack")
            telemetries = await running.enter_async_context(
                stack_module.serving(settings, span_exporters=span_exporters)
            )
        seed_module = importlib.import_module("minion_cli.development.seed")
        credentials = await seed_module.seeded(directory, credentials, addresses)
        stack = Stack(os.getpid(), addresses, operations)
        directory.announce(stack)
        running.callback(directory.withdraw)
        yield Launched(credentials, stack, settings, telemetries, children)


def _check_ports(directory: Directory, ports: Mapping[str, Ports]) -> None:
    try:
        check(ports)
    except Unavailable as taken:
        # What holds the ports is most often the stack that runs here already, which is the better thing to be told.
        if directory.find_stack() is not None:
            raise database.stack_running(directory.path) from taken
        raise
