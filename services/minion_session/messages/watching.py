"""Watching a session: its messages page by page, then those to come."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from minion_auth import tenant

from minion_session.messages.domain import Message, MessageQuery
from minion_session.messages.store import MessageStore

_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Every message up to a sequence was yielded."""

    sequence: int


class MessageWatch:
    """Tells what is said in a session.

    A sequence without gaps is all that a watch needs: it asks for what is after the last one seen, on any
    replica.
    """

    def __init__(self, store: MessageStore, *, poll_seconds: float, sync_seconds: float) -> None:
        """`poll_seconds` lie between two looks; after `sync_seconds` of silence a watcher is told that it is synced."""
        self._store = store
        self._poll_seconds = poll_seconds
        self._sync_seconds = sync_seconds

    async def watch(self, session_id: UUID, after: int) -> AsyncGenerator[tuple[Message, ...] | CaughtUp]:
        """Yields pages of messages after a sequence, CaughtUp, then what comes, for as long as it is asked.

        Raises:
            NotFound: there is no such session, or no more (`SESSION_NOT_FOUND`).
        """
        tenant_id = tenant()
        query = MessageQuery(session_id, after, descending=False)
        clock = asyncio.get_running_loop().time
        spoke: float | None = None
        while True:
            messages, more = await self._store.list(tenant_id, query, after=after, page_size=_PAGE)
            if messages:
                yield messages
                after = messages[-1].sequence
                # The first time it says so at once, later after a silence.
                spoke = None if spoke is None else clock()
            if more:
                continue
            if spoke is None or clock() - spoke >= self._sync_seconds:
                yield CaughtUp(after)
                spoke = clock()
            await asyncio.sleep(self._poll_seconds)
