"""Erasure and retention in Postgres: in batches, each a transaction of its own."""

from datetime import timedelta
from uuid import UUID

from minion_postgres import Database, queries

from minion_memory.memories.domain import MemoryType
from minion_memory.subjects.domain import Erased

_QUERIES = queries.load(__package__)
_BATCH = 500


class SubjectStore:
    """Deletes what is kept of a user, and what was kept for long enough."""

    def __init__(self, database: Database, *, batch: int = _BATCH) -> None:
        self._database = database
        self._batch = batch

    async def erase(self, tenant_id: UUID, user_id: str) -> Erased:
        """Deletes a part of what is kept of a user."""
        row = await self._database.fetch_one(_QUERIES.erase_subject, tenant_id, user_id, self._batch)
        assert row is not None
        return Erased(**dict(row))

    async def with_outlived(self, kind: MemoryType, kept: timedelta) -> list[UUID]:
        """Finds tenants that have memories of a type whose last change is longer ago."""
        rows = await self._database.fetch(_QUERIES.pick_outlived, kind.value, kept, self._batch)
        return [row["tenant_id"] for row in rows]

    async def prune(self, tenant_id: UUID, kind: MemoryType, kept: timedelta) -> int:
        """Deletes a part of a tenant's memories of a type whose last change is longer ago; returns how many went."""
        return int(await self._database.fetch_value(_QUERIES.prune_outlived, tenant_id, kind.value, kept, self._batch))
