"""Events on their way: one batched writer a replica, and what each run in hand has yet to tell.

An event is shown only once it is committed. Events that come within 20 ms share a transaction, whatever runs and
tenants they belong to; the first after a silence waits 2 ms, so that an answer that is short goes with its result.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

import structlog
from minion_errors import Aborted, DeadlineExceeded, Unavailable

from minion_gateway.runs.changes import Fence
from minion_gateway.runs.domain import LeasedRun, Run, RunState
from minion_gateway.runs.feeds import Feed
from minion_gateway.runs.happenings import Numbered, Payload, RunEvent, TextAdded, joined
from minion_gateway.runs.points import point
from minion_gateway.runs.store import Batch, RunStore

_FIRST_SECONDS = 0.002
_NEXT_SECONDS = 0.02
_RUNS_A_BATCH = 256
_PAUSE_SECONDS = 0.1
_log = structlog.get_logger()

# What may have been written, or not: then the run's row tells.
UNCERTAIN = (Unavailable, DeadlineExceeded, Aborted)


class RunLog:
    """The events of a run in hand, from their happening to their delivery. One task adds to it, the run's own."""

    def __init__(self, run: LeasedRun, feed: Feed, writer: "EventWriter", lost: Callable[[], None]) -> None:
        self.run = run
        self.lost = lost
        self._feed = feed
        self._writer = writer
        self._last = run.last_event_sequence
        self._pending: list[Payload] = []
        self._settled = asyncio.Event()
        self._settled.set()
        self._text_from: dict[tuple[int, int], int] = {}

    def add(self, payload: Payload) -> None:
        """Notes that something happened; the writer commits it within tens of milliseconds, or `take` sooner."""
        self._pending.append(payload)
        self._writer.wake(self)

    def forget_text(self, step: int, attempt: int) -> int | None:
        """Drops text of an attempt that nobody can have seen; returns the first event with some that was written."""
        self._pending = [
            payload
            for payload in self._pending
            if not isinstance(payload, TextAdded) or (payload.step, payload.attempt) != (step, attempt)
        ]
        return self._text_from.get((step, attempt))

    async def take(self) -> list[Numbered]:
        """Returns what is not on its way yet, numbered, for the caller's own transaction; `last` counts it already."""
        await self._settled.wait()
        return self.number()

    def number(self) -> list[Numbered]:
        """Takes what happened and gives it its place in the run."""
        taken = [Numbered(self._last + place, payload) for place, payload in enumerate(joined(self._pending), start=1)]
        self._pending.clear()
        self._last += len(taken)
        for event in taken:
            if isinstance(event.payload, TextAdded):
                self._text_from.setdefault((event.payload.step, event.payload.attempt), event.sequence)
        return taken

    def unnumber(self, count: int) -> None:
        """Takes back the places of the latest events: they never happened, and others get them."""
        self._last -= count

    @property
    def waiting(self) -> bool:
        """Whether something is to be written."""
        return bool(self._pending)

    @property
    def last(self) -> int:
        """The sequence of the last event that was numbered."""
        return self._last

    def hold(self) -> None:
        """Says that events are on their way to the database."""
        self._settled.clear()

    def settle(self) -> None:
        """Says that nothing is on its way."""
        self._settled.set()

    def deliver(self, events: Sequence[Numbered], time: datetime, ended: Run | None = None) -> None:
        """Shows committed events to the watchers here; `ended` is the run that ended with the last of them."""
        last = len(events) - 1
        self._feed.publish(
            [
                RunEvent(self.run.run_id, event.sequence, time, event.payload, ended if place == last else None)
                for place, event in enumerate(events)
            ]
        )


class EventWriter:
    """Writes what the runs in hand have to tell, one batch at a time."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._dirty: dict[UUID, RunLog] = {}
        self._wakened = asyncio.Event()
        self._written = 0.0

    def wake(self, log: RunLog) -> None:
        """Says that a log has something to write."""
        self._dirty[log.run.run_id] = log
        self._wakened.set()

    async def run(self) -> None:
        """Writes until it is cancelled; what is on its way then may or may not be written."""
        clock = asyncio.get_running_loop().time
        while True:
            await self._wakened.wait()
            now = clock()
            await asyncio.sleep(max(_FIRST_SECONDS, self._written + _NEXT_SECONDS - now))
            await self._write(self._take())
            self._written = clock()

    def _take(self) -> list[tuple[RunLog, list[Numbered]]]:
        taken = []
        for run_id in list(self._dirty)[:_RUNS_A_BATCH]:
            log = self._dirty.pop(run_id)
            if log.waiting:
                log.hold()
                taken.append((log, log.number()))
        if not self._dirty:
            self._wakened.clear()
        return taken

    async def _write(self, parts: list[tuple[RunLog, list[Numbered]]]) -> None:
        uncertain = False
        try:
            while parts:
                point("events.before")
                times = await self._append(parts)
                if times is None:
                    uncertain = True
                    await asyncio.sleep(_PAUSE_SECONDS)
                    parts = await self._unwritten(parts)
                    continue
                point("events.committed")
                missed = []
                for log, events in parts:
                    time = times.get(log.run.run_id)
                    if time is None and uncertain:
                        missed.append((log, events))
                    else:
                        self._settle(log, events, time)
                # An earlier try may have been on its way still when it was looked for.
                for log, events in await self._unwritten(missed):
                    self._settle(log, events, None)
                return
        finally:
            for log, _ in parts:
                log.settle()

    async def _append(self, parts: Sequence[tuple[RunLog, list[Numbered]]]) -> dict[UUID, datetime] | None:
        """Writes one batch; None when it is not known whether it was written."""
        try:
            return await self._store.append_events([Batch(_fence(log, events), events) for log, events in parts])
        except UNCERTAIN as fault:
            _log.warning("events were not acknowledged", runs=len(parts), error=fault.message, reason=fault.reason)
            return None

    async def _unwritten(self, parts: list[tuple[RunLog, list[Numbered]]]) -> list[tuple[RunLog, list[Numbered]]]:
        """Reads by key what became of a batch; settles what was written and returns the rest."""
        left = []
        for log, events in parts:
            try:
                found = await self._store.fence_of(log.run.tenant_id, log.run.run_id)
                if found is None or found[0].epoch != log.run.epoch or found[1] is not RunState.WORKING:
                    self._settle(log, events, None)
                elif found[0].last_event < events[-1].sequence:
                    left.append((log, events))
                else:
                    stored = await self._store.events(log.run.tenant_id, log.run.run_id, events[0].sequence - 1, 1)
                    self._settle(log, events, stored[0].create_time)
            except UNCERTAIN:
                left.append((log, events))
        return left

    def _settle(self, log: RunLog, events: Sequence[Numbered], time: datetime | None) -> None:
        if time is None:
            # Another replica drives the run: what was numbered here never happened.
            log.lost()
        else:
            log.deliver(events, time)
        log.settle()


def _fence(log: RunLog, events: Sequence[Numbered]) -> Fence:
    return Fence(log.run.tenant_id, log.run.run_id, log.run.epoch, 0, events[-1].sequence)
