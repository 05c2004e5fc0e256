"""Following sessions: one replica reads the session service's feed, and whichever is free looks at who changed.

A look asks how far the session is and what its agent wants, and makes jobs of what nobody has drawn from: once the
session has ended or is idle, once as many messages came as the agent's policy says, and for episodes at once.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime, timedelta
from uuid import uuid4

import structlog
from minion_auth import acting_as
from minion_errors import Aborted, InvalidArgument, MinionError, NotFound

from minion_memory.extraction.domain import EPISODES, Policy, Session, Trigger
from minion_memory.extraction.metrics import ExtractionMetrics
from minion_memory.extraction.peer import SessionChange, Sessions
from minion_memory.extraction.policies import Policies
from minion_memory.extraction.store import MOST_JOBS, Due, FeedStore
from minion_memory.extraction.worker import acting_for

_ORIGIN = "service:memory"
_FEED_LEASE = timedelta(seconds=30)
# SYNCED comes about every 10 s of silence; a feed that is silent for longer is taken for dead.
_SILENCE_SECONDS = 25.0
_PAUSE_SECONDS = 2.0
# Connections end by their age every few minutes; what is taken up at the next try is no outage.
_BREAKS_TOLD = 2
_LOOKS_AT_ONCE = 20
_LOOK_SECONDS = 1.0
# A look that fails is made again after so long.
_HOLD = timedelta(seconds=30)
_LISTED_A_TENANT = 2_000
_log = structlog.get_logger()


class Follower:
    """Reads the feed, on one replica at a time."""

    def __init__(self, feed: FeedStore, sessions: Sessions, metrics: ExtractionMetrics) -> None:
        self._replica = uuid4()
        self._feed = feed
        self._sessions = sessions
        self._metrics = metrics
        self._breaks = 0

    async def run(self) -> None:
        """Follows the session service's feed, for ever; a feed that breaks is taken up where it was."""
        while True:
            try:
                cursor = await self._feed.hold(self._replica, _FEED_LEASE)
                if cursor is not None:
                    await self._follow(cursor)
            except (Aborted, InvalidArgument) as fault:
                _log.warning("the session feed has lost our place; sessions are listed anew", reason=fault.reason)
                await self._begin_anew()
            except MinionError as fault:
                self._down(fault.reason, fault.message)
            except TimeoutError:
                self._down("SILENT", f"The feed has said nothing for {_SILENCE_SECONDS:.0f} s.")
            self._metrics.following.set(0)
            await asyncio.sleep(_PAUSE_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret

    async def release(self) -> None:
        """Gives the feed back, when the replica stops."""
        await self._feed.release(self._replica)

    async def _follow(self, cursor: str) -> None:
        changes = self._sessions.watch(cursor)
        async with aclosing(changes):
            while True:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    change = await anext(changes, None)
                if change is None:
                    return
                if not cursor:
                    # Nothing says what happened before the feed began; from here on nothing is lost.
                    await self._list()
                    cursor = change.cursor
                if not await self._take(change):
                    return
                self._up()

    def _up(self) -> None:
        # What has only been opened may be refused yet.
        if self._breaks >= _BREAKS_TOLD:
            _log.info("the session feed is up again")
        self._breaks = 0
        self._metrics.following.set(1)

    def _down(self, reason: str, error: str) -> None:
        # Once an outage, not once a try.
        self._breaks += 1
        if self._breaks == _BREAKS_TOLD:
            _log.warning(
                "the session feed is down: what is said meanwhile is drawn from once it is up",
                reason=reason,
                error=error,
            )

    async def _take(self, change: SessionChange) -> bool:
        """Notes a change, then moves the cursor on: what is told twice is noted twice. False when another reads."""
        if change.tenant_id is not None and change.session_id is not None:
            if change.is_gone:
                await self._feed.forget(change.tenant_id, change.session_id)
            else:
                await self._feed.note(change.tenant_id, change.session_id)
        return await self._feed.advance(self._replica, _FEED_LEASE, change.cursor)

    async def _begin_anew(self) -> None:
        """Gives our place up: the next reading begins at the feed's head, with a listing."""
        try:
            await self._feed.advance(self._replica, _FEED_LEASE, "")
        except MinionError as fault:
            _log.warning("the session feed's place could not be given up", reason=fault.reason, error=fault.message)

    async def _list(self) -> None:
        """Notes the newest sessions of the tenants that we know: none, where nobody was ever followed."""
        for tenant_id in await self._feed.tenants():
            with acting_as(acting_for(tenant_id)):
                for session_id in await self._sessions.newest(_LISTED_A_TENANT):
                    await self._feed.note(tenant_id, session_id)
            await self._feed.hold(self._replica, _FEED_LEASE)


class Looker:
    """Looks at sessions that are due, on any replica, and makes jobs of what is to be drawn."""

    def __init__(
        self,
        feed: FeedStore,
        sessions: Sessions,
        policies: Policies,
        *,
        default_extractor: str,
        idle_seconds: float,
        wake: Callable[[], None],
    ) -> None:
        self._feed = feed
        self._sessions = sessions
        self._policies = policies
        self._default_extractor = default_extractor
        self._idle = timedelta(seconds=idle_seconds)
        self._wake = wake

    async def run(self) -> None:
        """Looks, for ever."""
        while True:
            looked = 0
            try:
                due = await self._feed.pick(_LOOKS_AT_ONCE, _HOLD)
                looked = len(due)
                await asyncio.gather(*(self._look(one) for one in due))
            except MinionError as fault:
                _log.warning("no sessions could be looked at", reason=fault.reason, error=fault.message)
            if looked < _LOOKS_AT_ONCE:
                await asyncio.sleep(_LOOK_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret

    async def _look(self, due: Due) -> None:
        try:
            with acting_as(acting_for(due.tenant_id)):
                try:
                    session = await self._sessions.get(due.session_id)
                except NotFound:
                    await self._feed.forget(due.tenant_id, due.session_id)
                    return
                policy = await self._policies.of(due.tenant_id, session.agent_id)
                next_time = await self._schedule(due, session, policy)
                await self._feed.settle(due, session.user_id, next_time)
        except MinionError as fault:
            # It stays picked for a while, and comes again by itself.
            _log.info(
                "a session could not be looked at",
                tenant_id=str(due.tenant_id),
                session_id=str(due.session_id),
                reason=fault.reason,
            )

    async def _schedule(self, due: Due, session: Session, policy: Policy) -> datetime | None:
        """Makes the jobs that are wanted now; says when to look again, None for not before it changes."""
        idle_from = session.update_time + self._idle
        trigger = None
        if not session.is_active:
            trigger = Trigger.ENDED
        elif due.picked_at >= idle_from:
            trigger = Trigger.IDLE
        drawn = await self._feed.drawn(due.tenant_id, due.session_id)
        made, waits = 0, False
        for extractor, threshold in _wanted(policy, self._default_extractor):
            unseen = session.last_sequence - max(drawn.get(extractor, 0), session.fork_sequence)
            if unseen <= 0:
                continue
            why = trigger or (Trigger.MESSAGES if unseen >= threshold else None)
            if why is None:
                waits = True
                continue
            made += await self._feed.schedule(due.tenant_id, session, extractor, why, _ORIGIN)
        if made:
            self._wake()
        if made >= MOST_JOBS:
            # There may be more of it than one look hands out.
            return due.picked_at
        return idle_from if waits else None


def _wanted(policy: Policy, default_extractor: str) -> list[tuple[str, int]]:
    """The extractors that an agent's policy asks for, each with how many messages it waits for."""
    wanted: list[tuple[str, int]] = []
    if policy.episodes:
        # They ask no model, and the next conversation may begin before this one ends.
        wanted.append((EPISODES, 1))
    if policy.extract:
        wanted.append((policy.extractor or default_extractor, policy.extract_after_messages))
    return wanted
