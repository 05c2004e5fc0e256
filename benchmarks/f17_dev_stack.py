"""F17: how long `minion dev` takes to be ready, and what it holds in memory once the embedding model is loaded."""

import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil

from benchmarks.figure import Figure, Options, process_tree

ID = "F17"

_READY_SECONDS = 120.0
_FIRST_GOAL, _LATER_GOAL = 15.0, 5.0
_RESIDENT_GOAL = 700.0
_MIB = 1024 * 1024
# Keeps something and recalls it: both need the embedding model.
_TALK = b"My name is Ada.\nWhat is my name, and what is 17 * 23?\n"
_COMMAND = (sys.executable, "-m", "minion_cli")


async def measure(options: Options) -> list[Figure]:
    """Starts stacks from nothing and again, on the documented port scheme but free ports, and talks to the last."""
    rounds = 1 if options.short else 3
    first, later, resident, postgres = [], [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="minion-bench-") as place:
            # The embedded Postgres runs as a system user where we are root: it must get there.
            os.chmod(place, 0o755)  # noqa: S103 - holds nothing but what is open to this machine for the time of a run
            async with _running(place) as (_, seconds):
                first.append(seconds)
            async with _running(place) as (pid, seconds):
                later.append(seconds)
                await _talk(place)
                python, database = await asyncio.to_thread(_memory, pid)
                resident.append(python)
                postgres.append(database)
    return [
        _figure("first start, database and model files made", first, "s", _FIRST_GOAL),
        _figure("later start", later, "s", _LATER_GOAL),
        _figure("resident, five services and the model", resident, "MiB", _RESIDENT_GOAL),
        _figure("resident, the embedded Postgres beside it", postgres, "MiB", None),
    ]


def _figure(what: str, values: list[float], unit: str, goal: float | None) -> Figure:
    # The worst of the rounds: nobody waits for a median.
    value = max(values) if goal is not None else statistics.median(values)
    return Figure(
        id=ID,
        name=f"minion dev: {what}",
        value=value,
        unit=unit,
        yardstick="absolute",
        yardstick_value=None,
        ratio=None,
        goal="" if goal is None else f"value <= {goal:g} {unit}",
        ok=None if goal is None else value <= goal,
        cpu_us_per_op=None,
        runs=len(values),
    )


@asynccontextmanager
async def _running(place: str) -> AsyncIterator[tuple[int, float]]:
    """Runs `minion dev` for a block; gives its process id and the seconds until it was ready."""
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *_COMMAND, "dev", "--free-ports",
        cwd=place, env=_environ(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_READY_SECONDS):
            line = await process.stdout.readline()
        if not line.startswith(b"ready "):
            raise RuntimeError("minion dev did not become ready; run it by hand to see why")
        yield process.pid, time.perf_counter() - started
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.wait()


async def _talk(place: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *_COMMAND, "chat", "demo", "--user", "ada",
        cwd=place, env=_environ(), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    await process.communicate(_TALK)
    if process.returncode != 0:
        raise RuntimeError("the turn of the benchmark was not answered")


def _memory(pid: int) -> tuple[float, float]:
    """Gives MiB resident of our processes, and of Postgres'; what its processes share is counted once."""
    python = postgres = 0.0
    for number in process_tree(pid):
        process = psutil.Process(number)
        if process.name().startswith("postgres"):
            postgres += process.memory_full_info().pss
        else:
            python += process.memory_info().rss
    return python / _MIB, postgres / _MIB


def _environ() -> dict[str, str]:
    # As in a fresh terminal: no settings, no provider.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MINION_", "OPENAI_", "OTEL_"))}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
