"""Removes what is kept for a time: old changes and the request ids of repeatable writes."""

import asyncio

from minion_postgres import ChangeFeed, Database, idempotency


async def purge_for_ever(database: Database, feed: ChangeFeed, interval: float) -> None:
    """Purges now, then every `interval` seconds; safe to run in many replicas at once."""
    while True:
        await feed.purge()
        await idempotency.purge(database, "registry")
        await asyncio.sleep(interval)
