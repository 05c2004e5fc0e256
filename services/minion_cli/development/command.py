"""`minion dev`: the whole stack on this machine."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from minion_errors import Unavailable
from minion_grpc.collector import spare_calls
from minion_grpc.heap import keep_freed
from minion_grpc.run import loop_factory
from minion_telemetry import configure_logging

from minion_cli.application import single
from minion_cli.development import ports
from minion_cli.development.directory import DEFAULT, Directory
from minion_cli.development.launch import Launched, launched
from minion_cli.development.processes import first_end

app = single("Run all five services and their Postgres on this machine, until Ctrl-C.")

_HINT = """\
Try:  minion chat            talk to the demo agent
      minion doctor          check this machine
      grpcurl -plaintext {gateway} list
Data and keys stay in {directory}. Ctrl-C drains and stops."""


@app.command()
def dev(
    processes: Annotated[bool, typer.Option("--processes", help="A process for each service instead of one.")] = False,
    directory: Annotated[Path, typer.Option(help="Where data, keys and logs are kept.")] = DEFAULT,
    free_ports: Annotated[bool, typer.Option("--free-ports", help="Take free ports, not the documented ones.")] = False,
) -> None:
    """Run all five services and their Postgres on this machine, until Ctrl-C.

    With MINION_DATABASE_URL set, that database is used instead of an embedded one; MINION_ADMIN_DATABASE_URL names its
    administrator where the URL's own user is none.
    """
    environ = dict(os.environ)
    start_logging(environ)
    chosen = ports.free() if free_ports else ports.chosen(environ)
    run_until_signal(_serve(Directory(directory), chosen, environ, processes=processes), environ)


def start_logging(environ: Mapping[str, str]) -> None:
    """Sends logs to standard error: for people where one looks at it, for machines elsewhere."""
    environ = {"MINION_LOG_FORMAT": "console" if sys.stderr.isatty() else "json", **environ}
    level = environ.get("MINION_LOG_LEVEL", "info").lower()
    configure_logging(level if level in ("debug", "info", "warning", "error") else "info", environ["MINION_LOG_FORMAT"])


def run_until_signal(main: Coroutine[Any, Any, None], environ: Mapping[str, str]) -> None:
    """Runs `main` on the event loop that services run on; SIGINT and SIGTERM cancel it, so that its blocks unwind.

    A second signal ends the process at once.
    """

    async def guarded() -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(main)
        asked = False

        def stop() -> None:
            nonlocal asked
            if asked:
                os._exit(130)
            asked = True
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with asyncio.Runner(loop_factory=loop_factory(environ.get("MINION_EVENT_LOOP", "uvloop"))) as runner:
        runner.run(guarded())


async def _serve(
    directory: Directory, chosen: Mapping[str, ports.Ports], environ: Mapping[str, str], *, processes: bool
) -> None:
    async with launched(directory, ports=chosen, environ=environ, processes=processes) as stack:
        print(ready_line(stack), flush=True)
        if sys.stderr.isatty():
            hint = _HINT.format(gateway=stack.stack.addresses["gateway"], directory=directory.path)
            print(hint, file=sys.stderr, flush=True)
        if not stack.children:
            spare_calls()
            keep_freed()
            await asyncio.Event().wait()
        ended = await first_end(stack.children)
        raise Unavailable(f"The service {ended.service} has ended; see {ended.log}.", reason="SERVICE_FAILED")


def ready_line(stack: Launched) -> str:
    """Says in one line that the stack takes calls, and where: `ready gateway=127.0.0.1:50050 …`."""
    addresses = [f"{service}={address}" for service, address in stack.stack.addresses.items()]
    operations = [f"{service}.operations={address}" for service, address in stack.stack.operations.items()]
    return " ".join(["ready", *addresses, *operations])
