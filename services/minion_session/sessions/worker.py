"""What goes on beside the calls: counting the active sessions, forgetting old request ids."""

import asyncio

from minion_postgres import Database
from minion_postgres.idempotency import purge
from prometheus_client import CollectorRegistry, Gauge

from minion_session.sessions.store import SessionStore

_PURGE_SECONDS = 3_600.0


class ActiveSessions:
    """Keeps the gauge `active_sessions` right: the deployment's sessions that take messages.

    Every replica shows the same number; a dashboard takes their maximum, not their sum.
    """

    def __init__(self, store: SessionStore, registry: CollectorRegistry, *, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._gauge = Gauge(
            "active_sessions",
            "Sessions that take messages, of all tenants; estimated beyond 100,000.",
            registry=registry,
        )

    async def run(self) -> None:
        """Counts again and again."""
        while True:
            self._gauge.set(await self._store.count_active())
            await asyncio.sleep(self._seconds)


async def purge_requests(database: Database) -> None:
    """Deletes what is kept for replays once it is older than a day, every hour."""
    while True:
        await purge(database, "session")
        await asyncio.sleep(_PURGE_SECONDS)
