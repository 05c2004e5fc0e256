"""Measuring for how long the event loop worked without serving anybody, and what was done elsewhere."""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter, process_time, thread_time
from typing import Any

_TRIES = 3


async def longest_stall(work: Callable[[], Awaitable[Any]], *, enough: float = 0.4) -> float:
    """Does `work`; gives the longest time that the loop's thread worked in one piece, as a share of the whole.

    The thread's own CPU time, so that being passed over by a busy machine is no stall; a share of the wall time,
    because a slow machine makes both longer. The best of up to three tries, until one is below `enough`: what disturbs
    a measurement only lengthens it.
    """
    best = 1.0
    for _ in range(_TRIES):
        best = min(best, await _stall(work()))
        if best < enough:
            break
    return best


async def share_off_loop(work: Callable[[], Awaitable[Any]], *, enough: float = 0.2) -> float:
    """Does `work`; gives the share of the process's CPU time that other threads than the loop's spent meanwhile.

    The best of up to three tries, until one is above `enough`: a collection of garbage on the loop's thread, or
    whatever else goes on there, only lessens it.
    """
    best = 0.0
    for _ in range(_TRIES):
        process, loop = process_time(), thread_time()
        await work()
        process, loop = process_time() - process, thread_time() - loop
        best = max(best, 1 - loop / process)
        if best > enough:
            break
    return best


async def _stall(work: Awaitable[Any]) -> float:
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            before = thread_time()
            await asyncio.sleep(0)
            longest = max(longest, thread_time() - before)

    started = perf_counter()
    beating = asyncio.create_task(beat())
    try:
        await work
    finally:
        beating.cancel()
    return longest / (perf_counter() - started)
