"""Measuring for how long the event loop served nobody."""

import asyncio
from collections.abc import Awaitable
from time import perf_counter
from typing import Any


async def longest_stall(work: Awaitable[Any]) -> float:
    """Awaits `work` and gives the longest time in which the loop did nothing else, as a share of the whole.

    A share, because a busy machine makes both longer.
    """
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            before = perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, perf_counter() - before)

    started = perf_counter()
    beating = asyncio.create_task(beat())
    try:
        await work
    finally:
        beating.cancel()
    return longest / (perf_counter() - started)
