"""Revisions in Postgres."""

from array import array
from uuid import UUID

from minion_postgres import Database, Key, queries

from minion_memory.embedding_models.domain import EmbeddingModel
from minion_memory.memories.domain import Cause, Memory, revision_of
from minion_memory.memories.store import REPLY_BYTES, memory_of, packed, request_of
from minion_memory.revisions.domain import Revision, RevisionPage, Rollback

_QUERIES = queries.load(__package__)


class RevisionStore:
    """Reads revisions, and makes the one that puts a memory back."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant_id: UUID, memory_id: UUID, revision: int) -> Memory | None:
        """Reads a memory as it was in a state."""
        row = await self._database.fetch_one(_QUERIES.get_revision, tenant_id, memory_id, revision)
        return None if row is None else memory_of(row)

    async def list(self, tenant_id: UUID, memory_id: UUID, before: int | None, limit: int) -> RevisionPage | None:
        """Reads a page of at most `limit` states and 3 MiB, newest first; None when there is no such memory."""
        rows = await self._database.fetch(_QUERIES.list_revisions, tenant_id, memory_id, before, limit + 1, REPLY_BYTES)
        if not rows:
            return None
        revisions = tuple(
            Revision(memory_of(row), Cause(row["cause"]), row["reason"], row["principal"]) for row in rows[:limit]
        )
        return RevisionPage(revisions, more=rows[0]["row_count"] > len(revisions))

    async def roll_back(
        self,
        tenant_id: UUID,
        rollback: Rollback,
        model: EmbeddingModel | None,
        vector: "array[float] | None",
        principal: str,
        key: Key | None,
    ) -> Memory | None:
        """Puts a memory back; None when there is none, or no such state.

        Raises Aborted (ETAG_MISMATCH) when it is in another revision than the etag's.
        """
        row = await self._database.fetch_one(
            _QUERIES.roll_back_memory,
            tenant_id,
            *request_of(key),
            rollback.memory_id,
            revision_of(rollback.etag),
            rollback.revision,
            model.model_id if model else None,
            None if vector is None else packed(vector),
            principal,
        )
        return None if row is None else memory_of(row)
