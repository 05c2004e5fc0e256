"""Agents by id, from memory; the registry's feed keeps what is there right."""

import asyncio
from collections import OrderedDict
from contextlib import aclosing
from uuid import UUID

import structlog
from minion_auth import tenant
from minion_errors import FailedPrecondition, InvalidArgument, MinionError, NotFound, Unavailable

from minion_gateway.agents.domain import Candidate
from minion_gateway.agents.peer import ChangeKind, RegistryPeer

_REMEMBERED = 10_000
# SYNCED comes about every 10 s of silence; a feed that is silent for longer is taken for dead.
_SILENCE_SECONDS = 25.0
# While the feed is down, what is known is asked for again after so long.
_UNWATCHED_SECONDS = 2.0
# While the registry can't be asked at all, agents seen before take turns for so long.
_GRACE_SECONDS = 300.0
_PAUSE_SECONDS = 1.0
_log = structlog.get_logger()


class Agents:
    """A cache of resolved agents. With the feed up it is right within the feed's delay, and asks once an agent."""

    def __init__(self, registry: RegistryPeer) -> None:
        self._registry = registry
        self._known: OrderedDict[tuple[UUID, UUID], tuple[Candidate, float]] = OrderedDict()
        self._generation = 0
        self._watched = False
        self._cursor = ""

    async def resolve(self, agent_id: UUID) -> Candidate:
        """Returns an agent of the caller's tenant.

        Raises FailedPrecondition (AGENT_NOT_ACTIVE) when it is gone, Unavailable when it can't be asked for and wasn't
        known.
        """
        key = (tenant(), agent_id)
        now = asyncio.get_running_loop().time()
        known = self._known.get(key)
        if known is not None and (self._watched or now < known[1] + _UNWATCHED_SECONDS):
            return known[0]
        generation = self._generation
        try:
            candidate = await self._registry.resolve(agent_id)
        except NotFound as fault:
            self._known.pop(key, None)
            raise FailedPrecondition(
                "The session's agent is gone.",
                reason="AGENT_NOT_ACTIVE",
                metadata={"agent_id": str(agent_id), "status": "DELETED"},
            ) from fault
        except Unavailable:
            if known is not None and now < known[1] + _GRACE_SECONDS:
                return known[0]
            raise
        # A change that came while we asked may be one that the answer doesn't know.
        if generation == self._generation:
            self._known[key] = (candidate, now)
            self._known.move_to_end(key)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return candidate

    async def watch(self) -> None:
        """Follows the registry's feed, for ever; a feed that breaks is taken up where it was."""
        while True:
            try:
                await self._follow()
            except InvalidArgument:
                # The registry knows our place no more: what was missed can't be told, so all is asked for anew.
                self._cursor = ""
                self._forget()
            except MinionError as fault:
                _log.info("the registry's feed is down", error=fault.message, reason=fault.reason)
            except TimeoutError:
                _log.info("the registry's feed fell silent")
            finally:
                self._watched = False
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
                    self._watched = True
                else:
                    self._generation += 1
                    if change.tenant_id is not None and change.agent_id is not None:
                        self._known.pop((change.tenant_id, change.agent_id), None)
                    elif change.tenant_id is not None:
                        # A tool changed: any of the tenant's agents may have it.
                        for key in [key for key in self._known if key[0] == change.tenant_id]:
                            del self._known[key]
                self._cursor = change.cursor

    def _forget(self) -> None:
        self._generation += 1
        self._known.clear()
