"""Telling callers what happens to sessions, and finding out which are active."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import Final

from minion_auth import CallerKind, caller, tenant
from minion_postgres import ChangeFeed, Synced

from minion_session.changes.domain import SessionChange, SessionChangeKind
from minion_session.changes.store import ActivityStore

# Sessions that are told of in one go.
_BATCH: Final = 2_000


class Changes:
    """Tells what happens to sessions."""

    def __init__(self, feed: ChangeFeed, sync_seconds: float) -> None:
        """`sync_seconds` is the silence after which a watcher is told that it is synced."""
        self._feed = feed
        self._sync_seconds = sync_seconds

    async def watch(self, cursor: str) -> AsyncGenerator[SessionChange]:
        """Yields SYNCED, then every change behind the cursor (the empty one is now), for as long as it is asked.

        Raises:
            InvalidArgument: the cursor is malformed (`INVALID_FIELDS`).
            Aborted: changes after it are no longer kept (`CURSOR_EXPIRED`).
        """
        identity = caller()
        # A service that acts for nobody does something for every tenant, such as drawing memories from its sessions.
        everyone = identity.kind is CallerKind.SERVICE and identity.tenant_id is None
        tenant_id = None if everyone else tenant()
        self._feed.check(tenant_id, cursor)
        cursor = cursor or await self._feed.head(tenant_id)
        yield SessionChange(cursor, SessionChangeKind.SYNCED)
        async with aclosing(self._feed.follow(tenant_id, cursor, silence=self._sync_seconds)) as changes:
            async for change in changes:
                if isinstance(change, Synced):
                    yield SessionChange(change.cursor, SessionChangeKind.SYNCED)
                else:
                    yield SessionChange(
                        change.cursor,
                        SessionChangeKind(change.kind),
                        change.resource_id,
                        change.tenant_id,
                        change.create_time,
                    )


class Activity:
    """Tells which sessions got messages: in rounds, so that appends themselves write nothing of it.

    A round looks at the messages since the last one, and some time before, for those that were committed late; up to
    which message of a session was told is kept for as long. So nothing is told twice and nothing missed, whichever
    replicas take the rounds and wherever they die in them.
    """

    def __init__(self, store: ActivityStore, *, pause: timedelta, overlap: timedelta) -> None:
        """`pause` is the time between two rounds of all replicas, `overlap` longer than an append can take."""
        self._store = store
        self._pause = pause
        self._overlap = overlap

    async def round(self) -> int:
        """Takes a round if it is time for one; returns of how many sessions it told."""
        begun = await self._store.begin_round(self._pause)
        if begun is None:
            return 0
        total = 0
        while picked := await self._store.pick(begun.since, _BATCH):
            told = 0
            for tenant_id, sessions in picked.items():
                told += await self._store.tell(tenant_id, sessions)
            total += told
            # What is left, if anything, is being deleted, or told by another replica right now.
            if told == 0 or sum(map(len, picked.values())) < _BATCH:
                break
        await self._store.end_round(begun.begin_time - self._overlap)
        return total
