"""What goes on beside the calls: keeping the partitions of the coming months ready."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import structlog

from minion_activity.activities.store import PartitionStore


class Partitions:
    """Makes partitions ahead of time, as the owner: the service's own role may not.

    `connect` opens the owner's database for a block; a connection is held only while there is work.
    """

    def __init__(
        self, connect: Callable[[], AbstractAsyncContextManager[PartitionStore]], *, months_ahead: int, seconds: float
    ) -> None:
        self._connect = connect
        self._months_ahead = months_ahead
        self._seconds = seconds
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Looks again and again; of several replicas one makes what is missing."""
        while True:
            async with self._connect() as partitions:
                made = await partitions.make(months_ahead=self._months_ahead)
            if made:
                self._log.info("made partitions", months=[f"{month:%Y-%m}" for month in made])
            await asyncio.sleep(self._seconds)


async def warn_of_missing_owner() -> None:
    """Says once that nobody here makes partitions."""
    structlog.get_logger().warning(
        "partitions are not kept ahead: rows of months that have none go to the default one",
        setting="MINION_ACTIVITY_OWNER_DATABASE_URL",
    )
