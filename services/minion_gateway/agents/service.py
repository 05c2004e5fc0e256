"""Agents by id, from memory; the registry's feed keeps what is there right."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import aclosing
from uuid import UUID

import structlog
from minion_auth import tenant
from minion_errors import (
    Aborted,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    MinionError,
    NotFound,
    Unavailable,
)

from minion_gateway.agents.domain import Resolution
from minion_gateway.agents.metrics import AgentMetrics
from minion_gateway.agents.peer import AgentChange, ChangeKind, RegistryPeer

_REMEMBERED = 10_000
# An agent may have 100,000 characters of instructions and three quarters of a megabyte of tools: of such ones fewer.
_REMEMBERED_BYTES = 128 * 1024 * 1024
# SYNCED comes about every 10 s of silence; a feed that is silent for longer is taken for dead.
_SILENCE_SECONDS = 25.0
# While the feed is down, what is known is asked for again after so long; and a registry that can't be asked, too.
_UNWATCHED_SECONDS = 2.0
# While the registry can't be asked at all, agents that were known to be right take turns for so long.
_GRACE_SECONDS = 300.0
_PAUSE_SECONDS = 1.0
_BREAKS_TOLD = 2
_log = structlog.get_logger()


class _Question:
    """An agent that is asked for; `is_outdated` once it may be another than the answer says."""

    def __init__(self, tenant_id: UUID, agent_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.agent_id = agent_id
        self.is_outdated = False


class Agents:
    """A cache of resolved agents. With the feed up it is right within the feed's delay, and asks once an agent.

    While the registry is away it serves what it knows for five minutes, and says so in a log line and in its metrics.
    `monotonic` tells seconds that never go back.
    """

    def __init__(
        self, registry: RegistryPeer, metrics: AgentMetrics, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = registry
        self._metrics = metrics
        self._clock = monotonic
        self._known: OrderedDict[tuple[UUID, UUID], tuple[Resolution, float]] = OrderedDict()
        self._bytes = 0
        self._asked: set[_Question] = set()
        self._watched = False
        self._breaks, self._told_down = 0, False
        self._away_until = 0.0
        # When the feed last said that what is known is right.
        self._right_at = float("-inf")
        self._cursor = ""

    async def resolve(self, agent_id: UUID) -> Resolution:
        """Returns an agent of the caller's tenant, with the rollout that says which sessions its candidate takes.

        Raises FailedPrecondition (AGENT_NOT_ACTIVE) when it is gone, Unavailable when it can't be asked for and wasn't
        known.
        """
        key = (tenant(), agent_id)
        now = self._clock()
        known = self._known.get(key)
        if known is not None and (self._watched or now < known[1] + _UNWATCHED_SECONDS):
            return known[0]
        # An agent asked for long ago was right for as long as the feed was followed.
        in_grace = known is not None and now < max(known[1], self._right_at) + _GRACE_SECONDS
        if known is not None and in_grace and now < self._away_until:
            # Asked a moment ago, in vain: a turn doesn't wait to hear it again.
            return self._stale(known[0])
        question = _Question(*key)
        self._asked.add(question)
        try:
            resolution = await self._registry.resolve(agent_id)
        except NotFound as fault:
            self._let_go(key)
            raise FailedPrecondition(
                "The session's agent is gone.",
                reason="AGENT_NOT_ACTIVE",
                metadata={"agent_id": str(agent_id), "status": "DELETED"},
            ) from fault
        except (Unavailable, DeadlineExceeded):
            self._away_until = self._clock() + _UNWATCHED_SECONDS
            if known is not None and in_grace:
                return self._stale(known[0])
            raise
        finally:
            self._asked.discard(question)
        # A change that came while we asked may be one that the answer doesn't know.
        if not question.is_outdated:
            self._keep(key, resolution, now)
        return resolution

    async def watch(self) -> None:
        """Follows the registry's feed, for ever; a feed that breaks is taken up where it was."""
        while True:
            try:
                await self._follow()
            except (InvalidArgument, Aborted):
                # The registry knows our place no more, or keeps no changes of so long ago: what was missed can't be
                # told, so all is asked for anew.
                self._cursor = ""
                self._forget()
            except MinionError as fault:
                self._down(fault.reason, fault.message)
            except TimeoutError:
                self._down("SILENT", "It fell silent.")
            finally:
                self._watched = False
                self._metrics.feed_up.set(0)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _follow(self) -> None:
        changes = self._registry.watch(self._cursor)
        async with aclosing(changes):
            while True:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    change = await anext(changes, None)
                if change is None:
                    return
                if change.kind is ChangeKind.SYNCED:
                    if not self._cursor:
                        # Nothing says what happened before the feed began.
                        self._forget()
                    self._up()
                else:
                    self._drop(change)
                    if self._watched:
                        self._right_at = self._clock()
                self._cursor = change.cursor

    def _up(self) -> None:
        if self._told_down:
            _log.info("the registry's feed is up again")
        self._watched, self._breaks, self._told_down = True, 0, False
        self._right_at, self._away_until = self._clock(), 0.0
        self._metrics.feed_up.set(1)

    def _down(self, reason: str, error: str) -> None:
        # Once an outage, not once a try. Connections end by their age every few minutes; what is taken up at the next
        # try is no outage.
        self._breaks += 1
        if self._breaks < _BREAKS_TOLD:
            return
        if not self._told_down:
            _log.warning(
                "the registry's feed is down: agents are served as they were last seen where it can't be asked",
                reason=reason,
                error=error,
                known=len(self._known),
            )
        self._told_down = True

    def _stale(self, resolution: Resolution) -> Resolution:
        self._metrics.stale.inc()
        return resolution

    def _drop(self, change: AgentChange) -> None:
        for question in self._asked:
            # Others' changes are none of its: a tenant that changes much would have everybody asked for at each turn.
            if question.tenant_id == change.tenant_id and change.agent_id in (None, question.agent_id):
                question.is_outdated = True
        if change.tenant_id is not None and change.agent_id is not None:
            self._let_go((change.tenant_id, change.agent_id))
        else:
            # Something that any agent of the tenant may have to do with, such as a tool.
            for key in [key for key in self._known if key[0] == change.tenant_id]:
                self._let_go(key)

    def _keep(self, key: tuple[UUID, UUID], resolution: Resolution, asked_at: float) -> None:
        self._let_go(key)
        self._known[key] = (resolution, asked_at)
        self._bytes += resolution.size
        while len(self._known) > _REMEMBERED or (self._bytes > _REMEMBERED_BYTES and len(self._known) > 1):
            self._let_go(next(iter(self._known)))
        self._metrics.known.set(len(self._known))

    def _let_go(self, key: tuple[UUID, UUID]) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._bytes -= known[0].size
            self._metrics.known.set(len(self._known))

    def _forget(self) -> None:
        for question in self._asked:
            question.is_outdated = True
        self._known.clear()
        self._bytes = 0
        self._metrics.known.set(0)
