"""What is done with agents."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from minion_auth import CallerKind, caller, tenant
from minion_postgres import Change, ChangeFeed, Database, Idempotent, Key, Synced, Transaction, pages

from minion_registry import json_schema, paging
from minion_registry.agents.domain import (
    Agent,
    AgentChange,
    AgentChangeKind,
    AgentContents,
    AgentFilter,
    AgentHit,
    AgentName,
    AgentStatus,
    AgentUpdate,
)
from minion_registry.agents.store import BEST, LATEST_REVISION, AgentStore, Rank
from minion_registry.audit.domain import Entry
from minion_registry.audit.store import AuditStore

_KEPT = Idempotent(Agent, schema="registry")
_DELETED = Idempotent(type(None), schema="registry")
_MISSED_AT_ONCE = 500
# What the audit calls a move.
_MOVES = {
    AgentStatus.ACTIVE: "agent.activate",
    AgentStatus.INACTIVE: "agent.deactivate",
    AgentStatus.ARCHIVED: "agent.archive",
}


class Agents:
    """Keeps the agents of a tenant. Every change takes the agent's row first: writers of one agent take turns."""

    def __init__(self, database: Database, store: AgentStore, audit: AuditStore) -> None:
        self._database = database
        self._store = store
        self._audit = audit

    async def create(self, agent_id: UUID, contents: AgentContents, key: Key | None) -> Agent:
        """Creates a draft. Raises InvalidArgument (TOOL_SCHEMA_INVALID) and AlreadyExists (AGENT_NAME_TAKEN)."""
        tenant_id = tenant()
        await _check_schema(contents.llm.response_schema)

        async def write(transaction: Transaction) -> Agent:
            agent = await self._store.insert(transaction, tenant_id, agent_id, contents)
            await self._record(transaction, "agent.create", agent, {"name": contents.name})
            return agent

        async with self._database.transaction(tenant_id) as transaction:
            return await _KEPT.once(transaction, key, lambda: write(transaction))

    async def get(self, named: AgentName, revision: int) -> Agent:
        """Returns an agent in one of its revisions; 0 is the live one. Raises NotFound (AGENT_NOT_FOUND)."""
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
            "capability": selected.capabilities,
            "labels": selected.labels,
            "metadata": selected.metadata,
        }
        before = paging.place(token, filters)
        async with self._database.transaction(tenant_id) as transaction:
            found, last = await self._store.page(transaction, tenant_id, selected, before, size)
        return found, pages.encode(last, filters) if last else ""

    async def search(self, words: str, selected: AgentFilter, size: int, token: str) -> tuple[Sequence[AgentHit], str]:
        """Returns a page of the agents that fit, and the token of the next one, empty after the last.

        Those that have more of the words first; the newest first where none are given. Looks at status and capabilities
        of what is selected alone. Raises InvalidArgument (PAGE_TOKEN_INVALID).
        """
        tenant_id = tenant()
        filters = {
            "list": "agent_hits",
            "words": words,
            "status": selected.status.value if selected.status else None,
            "capabilities": selected.capabilities,
        }
        if not words:
            before = paging.place(token, filters)
            async with self._database.transaction(tenant_id) as transaction:
                found, last = await self._store.page(transaction, tenant_id, selected, before, size)
            return [AgentHit(agent, 1.0) for agent in found], pages.encode(last, filters) if last else ""
        rank = _rank(token, filters)
        async with self._database.transaction(tenant_id) as transaction:
            hits, worst = await self._store.search(transaction, tenant_id, words, selected, rank, size)
        return hits, pages.encode(worst, filters) if worst else ""

    async def update(self, agent_id: UUID, update: AgentUpdate, etag: str, key: Key | None) -> Agent:
        """Makes a new revision, live or staged, and returns the agent in it.

        Raises NotFound (AGENT_NOT_FOUND), Aborted (ETAG_MISMATCH), FailedPrecondition (AGENT_STATUS_UNSUITABLE,
        ROLLOUT_RUNNING), AlreadyExists (AGENT_NAME_TAKEN) and InvalidArgument (TOOL_SCHEMA_INVALID).
        """
        tenant_id = tenant()
        if "llm" in update.fields:
            await _check_schema(update.fields["llm"].response_schema)

        async def write(transaction: Transaction) -> Agent:
            agent = await self._store.lock(transaction, tenant_id, agent_id)
            agent.check_etag(etag)
            agent.check_open()
            if not update.stage:
                await self._store.check_no_rollout(transaction, tenant_id, agent_id)
            base = agent
            if update.base_revision not in (0, agent.revision):
                base = await self._store.get_revision(transaction, tenant_id, agent_id, update.base_revision)
            contents = update.over(base.contents)
            if update.stage:
                # What is staged keeps the agent's name, whatever it was called when its base was live.
                contents = replace(contents, name=agent.contents.name)
                changed = await self._store.stage(transaction, tenant_id, agent_id, contents)
            else:
                changed = await self._store.update(transaction, tenant_id, agent_id, contents)
            details = {
                "staged": update.stage,
                "base_revision": base.revision,
                "fields": update.changed(base.contents),
            }
            await self._record(transaction, "agent.update", changed, details)
            return changed

        async with self._database.transaction(tenant_id) as transaction:
            return await _KEPT.once(transaction, key, lambda: write(transaction))

    async def roll_back(self, agent_id: UUID, revision: int, etag: str, key: Key | None) -> Agent:
        """Makes a new live revision with the contents of an earlier one.

        Raises NotFound (AGENT_NOT_FOUND), Aborted (ETAG_MISMATCH), FailedPrecondition (AGENT_STATUS_UNSUITABLE,
        ROLLOUT_RUNNING) and AlreadyExists (AGENT_NAME_TAKEN).
        """
        tenant_id = tenant()

        async def write(transaction: Transaction) -> Agent:
            agent = await self._store.lock(transaction, tenant_id, agent_id)
            agent.check_etag(etag)
            agent.check_open()
            await self._store.check_no_rollout(transaction, tenant_id, agent_id)
            earlier = await self._store.get_revision(transaction, tenant_id, agent_id, revision)
            restored = await self._store.update(transaction, tenant_id, agent_id, earlier.contents)
            await self._record(transaction, "agent.rollback", restored, {"from_revision": revision})
            return restored

        async with self._database.transaction(tenant_id) as transaction:
            return await _KEPT.once(transaction, key, lambda: write(transaction))

    async def move(self, agent_id: UUID, to: AgentStatus, etag: str, key: Key | None) -> Agent:
        """Moves an agent along its life.

        Raises NotFound (AGENT_NOT_FOUND), Aborted (ETAG_MISMATCH) and FailedPrecondition (AGENT_TRANSITION_ILLEGAL,
        and on the way to the archive ROLLOUT_RUNNING).
        """
        tenant_id = tenant()

        async def write(transaction: Transaction) -> Agent:
            agent = await self._store.lock(transaction, tenant_id, agent_id)
            agent.check_etag(etag)
            agent.check_move(to)
            if to is AgentStatus.ARCHIVED:
                await self._store.check_no_rollout(transaction, tenant_id, agent_id)
            moved = await self._store.set_status(transaction, tenant_id, agent_id, to)
            await self._record(transaction, _MOVES[to], moved, {"from": agent.status.name})
            return moved

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
            await self._record(transaction, "agent.delete", agent, {"name": agent.contents.name})

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

    async def _record(self, transaction: Transaction, name: str, agent: Agent, details: Mapping[str, object]) -> None:
        entry = Entry(name, details, agent_id=agent.agent_id, agent_revision=agent.revision)
        await self._audit.record(transaction, tenant(), entry)


class AgentChanges:
    """Tells what happens to agents."""

    def __init__(self, feed: ChangeFeed, sync_seconds: float) -> None:
        """`sync_seconds` is the silence after which a watcher is told that it is synced."""
        self._feed = feed
        self._sync_seconds = sync_seconds

    async def watch(self, cursor: str, *, include_tools: bool) -> AsyncGenerator[AgentChange]:
        """Yields what happened behind the cursor (the empty one is now), SYNCED, then every change that comes.

        Without `include_tools` changes of tools are left out. It goes on for as long as it is asked. Raises
        InvalidArgument (INVALID_FIELDS) when the cursor is malformed, Aborted (CURSOR_EXPIRED) when changes after it
        are no longer kept.
        """
        identity = caller()
        # A service that acts for nobody keeps something about every tenant, such as the gateway its resolved agents.
        everyone = identity.kind is CallerKind.SERVICE and identity.tenant_id is None
        tenant_id = None if everyone else tenant()
        self._feed.check(tenant_id, cursor)
        missed: Sequence[Change] = ()
        while cursor and (missed := await self._feed.read(tenant_id, cursor, limit=_MISSED_AT_ONCE)):
            # SYNCED is what a watcher that keeps agents trusts them by: not before it was told what changed.
            for each in missed:
                cursor, told = each.cursor, _told(each)
                if include_tools or told.tool_id is None:
                    yield told
            if len(missed) < _MISSED_AT_ONCE:
                break
        cursor = cursor or await self._feed.head(tenant_id)
        yield AgentChange(cursor, AgentChangeKind.SYNCED)
        async with aclosing(self._feed.follow(tenant_id, cursor, silence=self._sync_seconds)) as changes:
            async for change in changes:
                if isinstance(change, Synced):
                    yield AgentChange(change.cursor, AgentChangeKind.SYNCED)
                    continue
                told = _told(change)
                if include_tools or told.tool_id is None:
                    yield told
                else:
                    # Who hears nothing for long takes the feed for dead, and its cursor must not grow old.
                    yield AgentChange(change.cursor, AgentChangeKind.SYNCED)


def _told(change: Change) -> AgentChange:
    kind, found = AgentChangeKind(change.kind), change.resource_id
    agent_id, tool_id = (None, found) if kind is AgentChangeKind.TOOL_CHANGED else (found, None)
    return AgentChange(change.cursor, kind, agent_id, change.tenant_id, tool_id)


async def _check_schema(schema: dict[str, Any] | None) -> None:
    if schema is not None:
        # Up to 0.1 s for 64 KiB of faults.
        await asyncio.to_thread(json_schema.check, schema, "agent.llm.response_schema")


def _rank(token: str, filters: Mapping[str, object]) -> Rank:
    if not token:
        return BEST
    score, create_time, agent_id = pages.decode(token, filters, (float, datetime, UUID))
    if not (isinstance(score, float) and isinstance(create_time, datetime) and isinstance(agent_id, UUID)):
        raise pages.refused("PAGE_TOKEN_INVALID", "page_token")
    return score, create_time, agent_id
