"""Durations counted in plain numbers.

prometheus_client's own histogram takes a lock and a dozen calls for each sample; these are written on the event loop
alone, and read at a scrape in a thread of its own.
"""

from bisect import bisect_left
from collections.abc import Sequence


class Durations:
    """A histogram of seconds; `bounds` are the upper ends of its buckets, rising, without the infinite one."""

    __slots__ = ("_bounds", "_counts", "_seconds")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Counts one duration."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._seconds += seconds

    def observe_none(self) -> None:
        """Counts a duration of 0, for less than `observe`."""
        self._counts[0] += 1

    def buckets(self) -> list[tuple[str, float]]:
        """Gives the counts as `HistogramMetricFamily.add_metric` takes them: cumulative, each under its bound."""
        found: list[tuple[str, float]] = []
        total = 0
        # Copied first: the event loop goes on counting while a scrape reads.
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts.copy(), strict=True):
            total += count
            found.append((bound, float(total)))
        return found

    @property
    def seconds(self) -> float:
        """The sum of what was counted."""
        return self._seconds
