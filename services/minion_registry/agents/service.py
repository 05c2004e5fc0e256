"""What is done with agents."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from minion_auth import CallerKind, caller, tenant
from minion_postgres import ChangeFeed, Database, Idempotent, Key, Synced, Transaction, pages

from minion_registry.agents.domain import (
    Agent,
    AgentChange,
    AgentChangeKind,
    AgentContents,
    AgentFilter,
    AgentName,
    AgentStatus,
)
from minion_registry.agents.store import LATEST_REVISION, NEWEST, AgentStore, Place

_KEPT = Idempotent(Agent, schema="registry")
_DELETED = Idempotent(type(None), schema="registry")


class Agents:
    """Keeps the agents of a tenant. Every change takes the agent's row first: writers of one agent take turns."""

    def __init__(self, database: Database, store: AgentStore) -> None:
        self._database = database
        self._store = store

    async def create(self, agent_id: UUID, contents: AgentContents, key: Key | None) -> Agent:
        """Creates a draft. Raises AlreadyExists (AGENT_NAME_TAKEN)."""
        tenant_id = tenant()
        async with self._database.transaction(tenant_id) as transaction:
            return await _KEPT.once(
                transaction, key, lambda: self._store.insert(transaction, tenant_id, agent_id, contents)
            )

    async def get(self, named: AgentName, revision: int) -> Agent:
        """Returns an agent in one of its revisions; 0 is the current one. Raises NotFound (AGENT_NOT_FOUND)."""
        tenant_id = tenant()
        async with self._database.transaction(tenant_id) as transaction:
            agent = await self._store.get(transaction, tenant_id, named)
            if revision in (0, agent.revision):
                return agent
            return await self._store.get_revision(transaction, tenant_id, agent.agent_id, revision)

    async def page(self, selected: AgentFilter, size: int, token: str) -> tuple[Sequence[Agent], str]:
        """Returns a page of agents, newest first, and the token of the next one, empty after the last.

        Raises InvalidArgument (PAGE_TOKEN_INVALID).
        """
        tenant_id = tenant()
        filters = {
            "list": "agents",
            "status": selected.status.value if selected.status else None,
            "behavior_type": selected.behavior_type,
            "capability": selected.capability,
            "labels": selected.labels,
        }
        before = _place(token, filters)
        async with self._database.transaction(tenant_id) as transaction:
            found, last = await self._store.page(transaction, tenant_id, selected, before, size)
        return found, pages.encode(last, filters) if last else ""

    async def update(self, agent_id: UUID, changes: dict[str, Any], etag: str, key: Key | None) -> Agent:
        """Replaces the fields of the contents that `changes` names, and makes a new revision.

        Raises NotFound (AGENT_NOT_FOUND), Aborted (ETAG_MISMATCH), FailedPrecondition (AGENT_STATUS_UNSUITABLE) and
        AlreadyExists (AGENT_NAME_TAKEN).
        """
        tenant_id = tenant()

        async def write(transaction: Transaction) -> Agent:
            agent = await self._store.lock(transaction, tenant_id, agent_id)
            agent.check_etag(etag)
            agent.check_open()
            return await self._store.update(transaction, tenant_id, agent_id, replace(agent.contents, **changes))

        async with self._database.transaction(tenant_id) as transaction:
            return await _KEPT.once(transaction, key, lambda: write(transaction))

    async def move(self, agent_id: UUID, to: AgentStatus, etag: str, key: Key | None) -> Agent:
        """Moves an agent along its life.

        Raises NotFound (AGENT_NOT_FOUND), Aborted (ETAG_MISMATCH) and FailedPrecondition (AGENT_TRANSITION_ILLEGAL).
        """
        tenant_id = tenant()

        async def write(transaction: Transaction) -> Agent:
            agent = await self._store.lock(transaction, tenant_id, agent_id)
            agent.check_etag(etag)
            agent.check_move(to)
            return await self._store.set_status(transaction, tenant_id, agent_id, to)

        async with self._database.transaction(tenant_id) as transaction:
            return await _KEPT.once(transaction, key, lambda: write(transaction))

    async def delete(self, agent_id: UUID, etag: str, key: Key | None) -> None:
        """Deletes a draft or archived agent with its revisions and bindings.

        Raises NotFound (AGENT_NOT_FOUND), Aborted (ETAG_MISMATCH) and FailedPrecondition (AGENT_STATUS_UNSUITABLE).
        """
        tenant_id = tenant()

        async def write(transaction: Transaction) -> None:
            agent = await self._store.lock(transaction, tenant_id, agent_id)
            agent.check_etag(etag)
            agent.check_deletable()
            await self._store.delete(transaction, tenant_id, agent_id)

        async with self._database.transaction(tenant_id) as transaction:
            await _DELETED.once(transaction, key, lambda: write(transaction))

    async def revisions(self, agent_id: UUID, size: int, token: str) -> tuple[Sequence[Agent], str]:
        """Returns a page of an agent's revisions, newest first, and the token of the next one.

        Raises NotFound (AGENT_NOT_FOUND) and InvalidArgument (PAGE_TOKEN_INVALID).
        """
        tenant_id = tenant()
        filters = {"list": "agent_revisions", "agent_id": str(agent_id)}
        before = pages.decode(token, filters, (int,))[0] if token else LATEST_REVISION
        if not isinstance(before, int):
            raise pages.refused("PAGE_TOKEN_INVALID", "page_token")
        async with self._database.transaction(tenant_id) as transaction:
            await self._store.get(transaction, tenant_id, AgentName(agent_id=agent_id))
            found, last = await self._store.revisions(transaction, tenant_id, agent_id, before, size)
        return found, pages.encode((last,), filters) if last else ""


class AgentChanges:
    """Tells what happens to agents."""

    def __init__(self, feed: ChangeFeed, sync_seconds: float) -> None:
        """`sync_seconds` is the silence after which a watcher is told that it is synced."""
        self._feed = feed
        self._sync_seconds = sync_seconds

    async def watch(self, cursor: str) -> AsyncGenerator[AgentChange]:
        """Yields SYNCED, then every change behind the cursor (the empty one is now), for as long as it is asked.

        Raises InvalidArgument (INVALID_FIELDS) when the cursor is malformed, Aborted (CURSOR_EXPIRED) when changes
        after it are no longer kept.
        """
        identity = caller()
        # A service that acts for nobody keeps something about every tenant, such as the gateway its resolved agents.
        everyone = identity.kind is CallerKind.SERVICE and identity.tenant_id is None
        tenant_id = None if everyone else tenant()
        self._feed.check(tenant_id, cursor)
        cursor = cursor or await self._feed.head(tenant_id)
        yield AgentChange(cursor, AgentChangeKind.SYNCED)
        async with aclosing(self._feed.follow(tenant_id, cursor, silence=self._sync_seconds)) as changes:
            async for change in changes:
                if isinstance(change, Synced):
                    yield AgentChange(change.cursor, AgentChangeKind.SYNCED)
                else:
                    kind, found = AgentChangeKind(change.kind), change.resource_id
                    agent_id, tool_id = (None, found) if kind is AgentChangeKind.TOOL_CHANGED else (found, None)
                    yield AgentChange(change.cursor, kind, agent_id, change.tenant_id, tool_id)


def _place(token: str, filters: Mapping[str, object]) -> Place:
    if not token:
        return NEWEST
    create_time, agent_id = pages.decode(token, filters, (datetime, UUID))
    if not (isinstance(create_time, datetime) and isinstance(agent_id, UUID)):
        raise pages.refused("PAGE_TOKEN_INVALID", "page_token")
    return create_time, agent_id
