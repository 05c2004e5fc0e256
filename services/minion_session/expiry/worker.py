"""Cleans up in the background."""

import asyncio

from minion_session.expiry.service import Expiry


async def clean_for_ever(expiry: Expiry, seconds: float) -> None:
    """Cleans up every few seconds; safe to run in many replicas at once, which pass over each other's work."""
    while True:
        await expiry.clean_everywhere()
        await asyncio.sleep(seconds)
