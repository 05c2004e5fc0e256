"""What goes on beside the calls: deleting memories that are older than their type is kept."""

import asyncio

from minion_memory.subjects.service import Pruning


async def prune_memories(pruning: Pruning, *, seconds: float) -> None:
    """Deletes what is due, again and again."""
    while True:
        await pruning.prune()
        await asyncio.sleep(seconds)
