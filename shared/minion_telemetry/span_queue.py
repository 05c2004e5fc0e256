"""Spans between those who end them and those who take them: a bounded queue, and one thread that empties it.

A collector that is down costs less than one that is up: what doesn't fit is dropped and counted before anybody encodes
it, one batch is tried after ever longer waits, and the log gets a line when the outage begins and one when it ends.
OpenTelemetry's own batch processor is not used: its end blocks for as long as a collector hangs, and it counts nothing
that an operator could watch.
"""

import threading
from collections import deque
from collections.abc import Sequence
from math import inf
from time import monotonic
from typing import Protocol

import structlog
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry, Counter

from minion_telemetry.otlp import NotTakenError
from minion_telemetry.spans import RecordedSpan

_log = structlog.get_logger()

# Spans that wait: about 3 MiB, and a second of a busy replica.
_CAPACITY = 4_096
_BATCH = 512
_DELAY_SECONDS = 1.0
# After each attempt that fails the next one waits twice as long.
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 1.0, 30.0
# A batch is given up after so many: half a minute.
_ATTEMPTS = 6
# A collector that is merely too slow is spoken of once in so long.
_QUIET_SECONDS = 60.0
# What the end waits for an export under way, and then for the thread that was cut off from its collector.
_STOP_SECONDS, _CUT_SECONDS = 3.0, 2.0


class SpanCounts:
    """What became of the spans that ended: `trace_spans_total`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        spans = Counter(
            "trace_spans",
            "Recorded spans: exported, failed (given up, or not to be encoded) or dropped (no room to wait).",
            ["outcome"],
            registry=registry,
        )
        self.exported, self.failed, self.dropped = (
            spans.labels(outcome) for outcome in ("exported", "failed", "dropped")
        )


class Exporter(Protocol):
    """Where spans go."""

    def send(self, spans: Sequence[RecordedSpan]) -> int:
        """Sends a batch, without those that can't be encoded; gives how many these are.

        Raises NotTakenError; may block for seconds.
        """

    def shutdown(self) -> None:
        """Ends what is under way."""


class Foreign:
    """Hands spans to an exporter that knows the SDK's form alone."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def send(self, spans: Sequence[RecordedSpan]) -> int:
        """Sends a batch. Raises NotTakenError."""
        if self._exporter.export([span.readable() for span in spans]) is not SpanExportResult.SUCCESS:
            raise NotTakenError("REFUSED", again=True)
        return 0

    def shutdown(self) -> None:
        """Ends what is under way."""
        self._exporter.shutdown()


class SpanQueue:
    """Hands ended spans to an exporter, in batches, from a thread of its own."""

    def __init__(
        self,
        exporter: Exporter,
        counts: SpanCounts,
        *,
        service: str,
        capacity: int = _CAPACITY,
        first_wait_seconds: float = _FIRST_WAIT_SECONDS,
        stop_seconds: float = _STOP_SECONDS,
        cut_seconds: float = _CUT_SECONDS,
    ) -> None:
        self._exporter = exporter
        self._counts = counts
        self._log = _log.bind(service=service)
        self._capacity = capacity
        self._first_wait = first_wait_seconds
        self._stop_seconds = stop_seconds
        self._cut_seconds = cut_seconds
        self._waiting: deque[RecordedSpan] = deque()
        # The batch that was not taken, and is tried again.
        self._held: list[RecordedSpan] = []
        self._attempts = 0
        self._wait = first_wait_seconds
        self._failing_since: float | None = None
        self._lost = 0
        self._losing = threading.Lock()
        self._quiet_until = 0.0
        self._exporting = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        # When the end waits for no further batch.
        self._stop_by = inf
        self._ended = False
        # What the thread was left with at its end.
        self._left = 0
        self._thread = threading.Thread(target=self._run, name="minion-spans", daemon=True)
        self._thread.start()

    def take(self, span: RecordedSpan) -> None:
        """Takes a span; never blocks."""
        waiting = self._waiting
        if len(waiting) >= self._capacity:
            self._counts.dropped.inc()
            self._lose(1)
            return
        waiting.append(span)
        # Asked once it waits: either the end finds it there, or it finds that nobody comes any more.
        if self._ended:
            self._drop_waiting()
        elif len(waiting) == _BATCH:
            self._wake.set()

    def flush(self, seconds: float) -> bool:
        """Exports what has ended, in the caller's thread; False where the time or the exporter did not suffice.

        Begins no batch after that time; one that it has begun takes what the exporter gives it (10 seconds).
        """
        deadline = monotonic() + seconds
        if not self._exporting.acquire(timeout=seconds):
            return False
        try:
            return self._export(deadline)
        finally:
            self._exporting.release()

    def shutdown(self) -> None:
        """Exports what has ended and stops; cuts off a collector that hangs, so that it takes 5 seconds at most."""
        if self._stopping.is_set():
            return
        self._stop_by = monotonic() + self._stop_seconds
        self._stopping.set()
        self._wake.set()
        self._thread.join(self._stop_seconds)
        # Cancels an export under way.
        self._exporter.shutdown()
        self._thread.join(self._cut_seconds)
        self._ended = True
        # A thread that not even the cut has ended by now still counts its batch, and nobody speaks of that.
        left = self._drop_waiting() + self._left
        if left:
            self._log.warning("spans were left behind", count=left)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            if self._failing_since is None:
                self._wake.wait(_DELAY_SECONDS)
                self._wake.clear()
            else:
                self._stopping.wait(self._wait)
            # Before, or an export under way when the end came would be the last, and leave what ended after it began.
            stopping = self._stopping.is_set()
            with self._exporting:
                self._export(inf)
                if stopping:
                    # Here, and not by whoever waits for this thread: that may have gone on before it comes to its end.
                    self._left, self._held = len(self._held), []
                    self._counts.dropped.inc(self._left)

    def _export(self, deadline: float) -> bool:
        """Exports what waits now, in batches; stops at the first that is not taken."""
        # What ends meanwhile waits for its own batch: many small ones would cost more than the spans.
        left = len(self._waiting)
        while self._held or left > 0:
            if monotonic() >= min(deadline, self._stop_by):
                return False
            if not self._held:
                self._held = self._taken(min(_BATCH, left))
                left -= len(self._held)
                if not self._held:
                    return True
            try:
                unfit = self._exporter.send(self._held)
            except NotTakenError as fault:
                self._note_failure(str(fault), again=fault.again)
                return False
            except Exception:  # noqa: BLE001 - the one handler of this thread: a batch that can't be sent stops no other
                self._log.exception("spans can't be exported", count=len(self._held))
                self._give_up()
                continue
            if unfit:
                self._counts.failed.inc(unfit)
                self._log.error("spans can't be encoded", count=unfit)
            self._counts.exported.inc(len(self._held) - unfit)
            self._held = []
            self._note_success()
        return True

    def _note_failure(self, cause: str, *, again: bool) -> None:
        self._attempts += 1
        if self._failing_since is None:
            self._failing_since = monotonic()
            self._log.warning("the collector takes no traces; calls go on", cause=cause)
        else:
            self._wait = min(2 * self._wait, _LONGEST_WAIT_SECONDS)
        if not again or self._attempts >= _ATTEMPTS:
            self._give_up()

    def _note_success(self) -> None:
        self._attempts, self._wait = 0, self._first_wait
        if self._failing_since is not None:
            seconds = round(monotonic() - self._failing_since, 1)
            self._failing_since = None
            self._log.info("the collector takes traces again", seconds=seconds, spans_lost=self._take_lost())
        elif self._lost and monotonic() >= self._quiet_until:
            self._quiet_until = monotonic() + _QUIET_SECONDS
            self._log.warning("more spans end than the collector takes", spans_lost=self._take_lost())

    def _give_up(self) -> None:
        self._counts.failed.inc(len(self._held))
        self._lose(len(self._held))
        self._held, self._attempts = [], 0

    def _taken(self, most: int) -> list[RecordedSpan]:
        taken: list[RecordedSpan] = []
        while len(taken) < most:
            try:
                taken.append(self._waiting.popleft())
            except IndexError:
                # Whoever ends spans after the end empties it too.
                break
        return taken

    def _drop_waiting(self) -> int:
        dropped = len(self._taken(self._capacity))
        self._counts.dropped.inc(dropped)
        return dropped

    def _lose(self, count: int) -> None:
        with self._losing:
            self._lost += count

    def _take_lost(self) -> int:
        with self._losing:
            lost, self._lost = self._lost, 0
            return lost
