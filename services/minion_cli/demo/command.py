"""`minion demo`: starts the stack, plays the scenario, tells what came of it, and stops everything."""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from minion_telemetry import configure_logging
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rich.text import Text

from minion_cli import output
from minion_cli.application import single
from minion_cli.connection import Connection, services
from minion_cli.demo.report import Stage, conclusion
from minion_cli.demo.scenario import Story, ViewOf, play
from minion_cli.development import ports
from minion_cli.development.command import run_until_signal
from minion_cli.development.directory import DEFAULT, Directory
from minion_cli.development.launch import Launched, launched

app = single("Show a real agent over two sessions, from an empty directory.")


@app.command()
def demo(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    directory: Annotated[Path, typer.Option(help="Where data, keys and logs are kept.")] = DEFAULT,
) -> None:
    """Show a real agent over two sessions: five services, a real Postgres, memory, tools, audit.

    With OPENAI_API_KEY (and OPENAI_BASE_URL) that provider answers, else a local stand-in, which is said so.
    """
    started = time.monotonic()
    environ = dict(os.environ)
    chosen = ports.chosen(environ)
    if ports.in_use(chosen):
        chosen = ports.free()
    kept = _unused(Directory(directory))
    kept.prepare()
    finished: list[Story] = []
    with (kept.logs / "demo.log").open("wb") as log:
        configure_logging("info", "json", stream=log)
        run_until_signal(_show(kept, chosen, environ, started, finished, as_json=as_json), environ)
    if not finished:
        raise typer.Exit(130)


async def _show(
    directory: Directory,
    chosen: Mapping[str, ports.Ports],
    environ: Mapping[str, str],
    started: float,
    finished: list[Story],
    *,
    as_json: bool,
) -> None:
    console = output.console()
    # Two, because an exporter takes no more once the first who uses it is done.
    ours, theirs = InMemorySpanExporter(), InMemorySpanExporter()
    if not as_json:
        console.print(Text("Minion demo: starting Postgres and five services …", "bold"))
    async with launched(directory, ports=chosen, environ=environ, span_exporters=[theirs]) as stack:
        if not as_json:
            ready = f"  ready in {time.monotonic() - started:.1f} s · data and logs in {directory.path}"
            console.print(Text(ready, "dim"), soft_wrap=True)
        connection = Connection(stack.stack.addresses, stack.credentials.api_key)
        async with services(connection, span_exporter=ours) as opened:
            story = await play(opened, ViewOf() if as_json else Stage(console))
        if not as_json:
            await _flush(stack)
            conclusion(console, story, [*ours.get_finished_spans(), *theirs.get_finished_spans()], directory)
    seconds = time.monotonic() - started
    if as_json:
        print(json.dumps(story.as_json(seconds), ensure_ascii=False), flush=True)
    else:
        console.print()
        console.print(Text(f"Done in {seconds:.1f} s; everything is stopped.", "bold"))
    finished.append(story)


async def _flush(stack: Launched) -> None:
    """Waits until the spans of all services are handed over."""
    await asyncio.gather(*(asyncio.to_thread(telemetry.flush) for telemetry in stack.telemetries.values()))


def _unused(directory: Directory) -> Directory:
    """Gives the directory, or one inside it while a stack is running there: `minion dev` owns its Postgres."""
    return directory if directory.find_stack() is None else Directory(directory.path / "demo")
