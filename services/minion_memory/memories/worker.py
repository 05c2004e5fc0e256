"""What goes on beside the calls: forgetting old request ids."""

import asyncio

from minion_postgres import Database
from minion_postgres.idempotency import purge

_PURGE_SECONDS = 3_600.0


async def purge_requests(database: Database) -> None:
    """Deletes what is kept for replays once it is older than a day, every hour."""
    while True:
        await purge(database, "memory")
        await asyncio.sleep(_PURGE_SECONDS)
