"""Where a run's time goes: to providers, to tools, or to us."""

import enum
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter


class Part(enum.Enum):
    """Whom a run waits for."""

    OWN = "own"
    PROVIDER = "provider"
    TOOLS = "tools"


# What stands first has the time in which a run waits for both.
_WAITED_FOR = (Part.PROVIDER, Part.TOOLS)


class RunTime:
    """Splits the time of a run, from its making on. Calls at the same time count once, and every moment somewhere.

    `monotonic` tells seconds that never go back.
    """

    def __init__(self, *, monotonic: Callable[[], float] = perf_counter) -> None:
        self._clock = monotonic
        self._since = monotonic()
        self._waits = dict.fromkeys(_WAITED_FOR, 0)
        self._seconds = dict.fromkeys(Part, 0.0)

    @contextmanager
    def waiting_for(self, part: Part) -> Iterator[None]:
        """Counts the time of a block as spent waiting for PROVIDER or TOOLS; blocks may overlap."""
        self._settle()
        self._waits[part] += 1
        try:
            yield
        finally:
            self._settle()
            self._waits[part] -= 1

    def split(self) -> dict[Part, float]:
        """Gives the seconds so far by part."""
        self._settle()
        return dict(self._seconds)

    def _settle(self) -> None:
        now = self._clock()
        part = next((part for part in _WAITED_FOR if self._waits[part]), Part.OWN)
        self._seconds[part] += now - self._since
        self._since = now
