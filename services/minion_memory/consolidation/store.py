"""Memories put in order, in Postgres: plan and changes in one transaction that holds the scope."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import orjson
from minion_postgres import Database, Key, Transaction, queries
from minion_postgres.idempotency import Idempotent

from minion_memory.consolidation.domain import (
    LEAST_SIMILARITY,
    Action,
    Consolidated,
    Kind,
    Readings,
    Scope,
    actions,
    groups,
    sources_of,
)
from minion_memory.memories.domain import Memory
from minion_memory.memories.store import memory_of

_QUERIES = queries.load(__package__)
_CONSOLIDATED = Idempotent(Consolidated, schema="memory")
# How many memories one consolidation looks at.
MOST_MEMORIES = 10_000
_MOST_METADATA = 16 * 1024


class ConsolidationStore:
    """Plans by the rules of the domain, and does what was planned."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def consolidate(self, tenant_id: UUID, scope: Scope, principal: str, key: Key | None) -> Consolidated:
        """Puts the memories of an agent and user in order; a dry run only says how.

        What they say is read before: with nothing locked, while other calls are served. What comes meanwhile is read
        within the transaction.
        """
        readings = await self._readings(tenant_id, scope)
        async with self._database.transaction(tenant_id) as transaction:
            if scope.dry_run:
                planned, _, _ = await self._plan(transaction, tenant_id, scope, readings)
                return planned
            await transaction.execute(_QUERIES.lock_scope, tenant_id, scope.agent_id, scope.user_id)

            async def write() -> Consolidated:
                planned, memories, now = await self._plan(transaction, tenant_id, scope, readings)
                for action in planned.actions:
                    await self._do(transaction, tenant_id, action, memories, now, principal)
                return planned

            return await _CONSOLIDATED.once(transaction, key, write)

    async def _readings(self, tenant_id: UUID, scope: Scope) -> Readings:
        async with self._database.transaction(tenant_id) as transaction:
            rows = await transaction.fetch(
                _QUERIES.scope_contents, tenant_id, scope.agent_id, scope.user_id, MOST_MEMORIES
            )
        return await asyncio.to_thread(lambda: Readings((row["key"], row["content"]) for row in rows))

    async def _plan(
        self, transaction: Transaction, tenant_id: UUID, scope: Scope, readings: Readings
    ) -> tuple[Consolidated, Mapping[UUID, Memory], datetime]:
        rows = await transaction.fetch(_QUERIES.scope_memories, tenant_id, scope.agent_id, scope.user_id, MOST_MEMORIES)
        now: datetime = await transaction.fetch_value(_QUERIES.current_time)
        memories = [memory_of(row) for row in rows]
        pairs = [(kept.memory_id, other.memory_id) for kept, *others in groups(memories, readings) for other in others]
        far = await transaction.fetch(
            _QUERIES.distant_pairs,
            tenant_id,
            [one for one, _ in pairs],
            [other for _, other in pairs],
            LEAST_SIMILARITY,
        )
        apart = [frozenset((row["one"], row["other"])) for row in far]
        planned = actions(memories, apart, now, readings, prune=scope.prune)
        return Consolidated(planned, len(memories)), {memory.memory_id: memory for memory in memories}, now

    async def _do(
        self,
        transaction: Transaction,
        tenant_id: UUID,
        action: Action,
        memories: Mapping[UUID, Memory],
        now: datetime,
        principal: str,
    ) -> None:
        if action.kind is Kind.PRUNE:
            await transaction.execute(_QUERIES.prune, tenant_id, list(action.memory_ids))
            return
        assert action.kept is not None
        kept = memories[action.kept]
        if action.kind is Kind.MERGE:
            await self._keep_sources(
                transaction, tenant_id, kept, [memories[one] for one in action.memory_ids], principal
            )
        # What was superseded was so until the later thing was; what was said twice is one from now on.
        ended = kept.valid_from if action.kind is Kind.SUPERSEDE else now
        for memory_id in action.memory_ids:
            await transaction.execute(
                _QUERIES.end_consolidated, tenant_id, memory_id, ended, kept.memory_id, action.reason, principal
            )

    async def _keep_sources(
        self, transaction: Transaction, tenant_id: UUID, kept: Memory, merged: Sequence[Memory], principal: str
    ) -> None:
        sources = sources_of(kept, merged)
        metadata = {**kept.metadata, "minion_sources": sources}
        if not sources or len(orjson.dumps(metadata)) > _MOST_METADATA:
            return
        changes = {"metadata": metadata}
        await transaction.execute(
            _QUERIES.note_sources,
            tenant_id,
            kept.memory_id,
            changes,
            "It stands for others that say the same.",
            principal,
        )
