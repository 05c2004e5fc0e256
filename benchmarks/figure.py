"""What a benchmark reports, and how ours and the yardstick take turns."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Options:
    """How thorough to be; `short` is for CI: it shows that the benchmark runs, not where we stand."""

    short: bool = False

    @property
    def rounds(self) -> int:
        """How often ours and the yardstick take turns."""
        return 3 if self.short else 12


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    `ratio` is ours over the yardstick's, None where the goal is absolute; `ok` is None where no goal applies yet.
    """

    id: str
    name: str
    value: float
    unit: str
    yardstick: str
    yardstick_value: float | None
    ratio: float | None
    goal: str
    ok: bool | None
    cpu_us_per_op: float | None
    runs: int


@dataclass(frozen=True, slots=True)
class Slice:
    """What one slice measured: operations, wall seconds, CPU seconds of all processes concerned, and each latency."""

    operations: int
    seconds: float
    cpu_seconds: float
    latencies: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds

    @property
    def p50(self) -> float:
        """Median latency in seconds."""
        return statistics.median(self.latencies)

    @property
    def cpu_per_operation(self) -> float:
        """CPU seconds that one operation took."""
        return self.cpu_seconds / self.operations


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians over the rounds; a ratio is the median of the rounds' own ratios, since host speed drifts."""

    ours: tuple[Slice, ...]
    yardstick: tuple[Slice, ...]

    def value(self, measure: Callable[[Slice], float]) -> tuple[float, float, float]:
        """Returns ours, the yardstick's and their ratio for one measure of a slice."""
        ours = [measure(part) for part in self.ours]
        theirs = [measure(part) for part in self.yardstick]
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        return statistics.median(ours), statistics.median(theirs), statistics.median(ratios)


Operation = Callable[[], Awaitable[object]]


async def run_slice(operation: Operation, *, seconds: float, concurrency: int, pids: Iterable[int]) -> Slice:
    """Repeats `operation` for about `seconds` with `concurrency` callers; CPU is that of `pids` over the slice."""
    processes = _running(pids)
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while time.perf_counter() < end:
            before = time.perf_counter()
            await operation()
            latencies.append(time.perf_counter() - before)

    cpu_before = _cpu(processes)
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(caller())
    elapsed = time.perf_counter() - started
    return Slice(len(latencies), elapsed, _cpu(processes) - cpu_before, tuple(latencies))


async def interleave(
    ours: Operation,
    yardstick: Operation,
    *,
    rounds: int,
    seconds: float = 0.5,
    concurrency: int = 1,
    pids: Iterable[int] = (),
    yardstick_pids: Iterable[int] = (),
) -> Comparison:
    """Measures ours and the yardstick in turn, `rounds` times; the first round of each warms up and is left out."""
    measured: list[tuple[Slice, Slice]] = []
    pids, yardstick_pids = tuple(pids), tuple(yardstick_pids)
    for _ in range(rounds + 1):
        own = await run_slice(ours, seconds=seconds, concurrency=concurrency, pids=pids)
        bare = await run_slice(yardstick, seconds=seconds, concurrency=concurrency, pids=yardstick_pids)
        measured.append((own, bare))
    kept = measured[1:]
    return Comparison(tuple(own for own, _ in kept), tuple(bare for _, bare in kept))


def cpu_seconds(pids: Iterable[int]) -> float:
    """Returns the CPU that these processes have taken since they began, in seconds."""
    return _cpu(_running(pids))


def process_tree(pid: int) -> list[int]:
    """Returns the process and all its descendants, such as a Postgres with its backends."""
    root = psutil.Process(pid)
    return [root.pid, *(child.pid for child in root.children(recursive=True))]


def _running(pids: Iterable[int]) -> list[psutil.Process]:
    # A backend of Postgres ends when its pool lets the connection go.
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found


def _cpu(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
