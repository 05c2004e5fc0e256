"""Tells which sessions are active, and forgets changes that nobody can ask for any more."""

import asyncio

from minion_postgres import ChangeFeed

from minion_session.changes.service import Activity

_PURGE_SECONDS = 3_600.0


async def tell_activity(activity: Activity, seconds: float) -> None:
    """Looks every few seconds whether it is time for a round; safe to run in many replicas at once."""
    while True:
        await activity.round()
        await asyncio.sleep(seconds)


async def purge_changes(feed: ChangeFeed) -> None:
    """Deletes changes that are older than they are kept, every hour."""
    while True:
        await feed.purge()
        await asyncio.sleep(_PURGE_SECONDS)
