"""Answers of the registry, remembered: for seconds while it can be asked, for a grace while it can't."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from minion_errors import DeadlineExceeded, Unavailable

from minion_auth.bounded import BoundedCache

_A = TypeVar("_A")

_KNOWN_SIZE = 16_384
_UNKNOWN_SIZE = 4_096
# While the registry is away, one call in this time asks again; the others live on what is known.
RETRY_SECONDS = 1.0


@dataclass(slots=True)
class _Known(Generic[_A]):
    answer: _A
    checked: float
    ask_again: float
    failed: bool = False  # the last time that it was asked for again


class Lookups(Generic[_A]):
    """Looks things up by a key of bytes; an answer of None says that there is no such thing.

    Either answer is believed for `cache_seconds`, counted from before the question was asked, so that what changes is
    felt within that time. While nobody can be asked, what was there stays so for `grace_seconds` more.
    """

    def __init__(
        self,
        ask: Callable[[bytes], Awaitable[_A | None]],
        *,
        cache_seconds: float,
        grace_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._cache_seconds = cache_seconds
        self._grace_seconds = grace_seconds
        self._monotonic = monotonic
        self._known: BoundedCache[bytes, _Known[_A]] = BoundedCache(_KNOWN_SIZE)
        self._unknown: BoundedCache[bytes, float] = BoundedCache(_UNKNOWN_SIZE)
        self._running: dict[bytes, asyncio.Task[_A | None]] = {}

    @property
    def known(self) -> int:
        """How many things are remembered that are there."""
        return len(self._known)

    @property
    def unknown(self) -> int:
        """How many are remembered that are not."""
        return len(self._unknown)

    async def get(self, key: bytes) -> _A | None:
        """Gives what the key stands for, or None.

        Raises:
            Unavailable: it can't be looked up now (`IDENTITY_UNAVAILABLE`).
        """
        now = self._monotonic()
        known = self._known.get(key)
        if known is not None:
            if now < known.ask_again:
                return known.answer
        elif (self._unknown.get(key) or 0.0) > now:
            return None
        # Calls that come at once with one key share a lookup; it outlives a caller who goes away meanwhile.
        lookup = self._running.get(key)
        if lookup is None:
            lookup = asyncio.get_running_loop().create_task(self._look_up(key))
            self._running[key] = lookup
            lookup.add_done_callback(lambda done: self._finish(key, done))
        elif known is not None and known.failed and now < self._end_of_grace(known):
            # One call asks whether the registry is back, and may wait for long; the others live on what is known.
            return known.answer
        return await asyncio.shield(lookup)

    def forget(self) -> None:
        """Drops everything, so that the next calls ask anew."""
        self._known.clear()
        self._unknown.clear()

    async def _look_up(self, key: bytes) -> _A | None:
        started = self._monotonic()
        try:
            answer = await self._ask(key)
        except (Unavailable, DeadlineExceeded) as fault:
            # The registry itself asks its database, which may be too slow as well as away.
            return self._by_grace(key, fault)
        if answer is None:
            self._known.drop(key)
            self._unknown.put(key, started + self._cache_seconds)
        else:
            self._unknown.drop(key)
            self._known.put(key, _Known(answer, started, started + self._cache_seconds))
        return answer

    def _by_grace(self, key: bytes, fault: Unavailable | DeadlineExceeded) -> _A:
        now = self._monotonic()
        known = self._known.get(key)
        if known is not None and now < self._end_of_grace(known):
            known.ask_again = now + RETRY_SECONDS
            known.failed = True
            return known.answer
        said = fault.retry_after if isinstance(fault, Unavailable) else None
        raise Unavailable(
            "The credential can't be checked now.",
            reason="IDENTITY_UNAVAILABLE",
            retry_after=said or timedelta(seconds=RETRY_SECONDS),
        ) from fault

    def _end_of_grace(self, known: _Known[_A]) -> float:
        return known.checked + self._cache_seconds + self._grace_seconds

    def _finish(self, key: bytes, done: "asyncio.Task[_A | None]") -> None:
        self._running.pop(key, None)
        if not done.cancelled():
            # Read, so that a lookup whose callers all went away doesn't complain of an exception nobody saw.
            done.exception()
