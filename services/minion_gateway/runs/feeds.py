"""The latest events of the runs that this replica drives, for the watchers that are here.

Watchers keep a place in the run, not a queue: one that falls behind what is remembered reads from the database.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from minion_gateway.runs.happenings import RunEvent

_REMEMBERED = 256


class Feed:
    """The committed events of one run, the latest 256."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.live = True
        self._events: deque[RunEvent] = deque(maxlen=_REMEMBERED)
        self._changed = asyncio.Event()

    def publish(self, events: Sequence[RunEvent]) -> None:
        """Adds events that were committed, in order and without a gap."""
        if not events:
            return
        if events[0].sequence != self.last + 1:
            # Not ours to order: whoever watches reads the database instead.
            self._events.clear()
        self._events.extend(events)
        self.last = events[-1].sequence
        self._wake()

    def close(self) -> None:
        """Says that this replica drives the run no more."""
        self.live = False
        self._wake()

    def after(self, sequence: int) -> list[RunEvent] | None:
        """Returns the events after a sequence (none, while there are none); None when only the database has them."""
        if sequence >= self.last and self.live:
            return []
        if not self._events or self._events[0].sequence > sequence + 1:
            return None
        found = [event for event in self._events if event.sequence > sequence]
        return found or None

    async def changed(self, sequence: int, seconds: float) -> None:
        """Waits until there is something after a sequence, or the run is driven here no more; at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.live and self.last <= sequence:
                    await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Feeds:
    """The feeds of all runs that are driven here."""

    def __init__(self) -> None:
        self._feeds: dict[UUID, Feed] = {}

    def open(self, run_id: UUID, last: int) -> Feed:
        """Opens the feed of a run that is driven here from now on; `last` is its last event so far."""
        feed = self._feeds[run_id] = Feed(last)
        return feed

    def close(self, run_id: UUID, feed: Feed) -> None:
        """Closes a feed; those who hold it may still read it."""
        feed.close()
        if self._feeds.get(run_id) is feed:
            del self._feeds[run_id]

    def get(self, run_id: UUID) -> Feed | None:
        """Returns the feed of a run, if it is driven here."""
        return self._feeds.get(run_id)
