"""Memories on their way out of Postgres."""

from array import array
from uuid import UUID

from minion_postgres import Database, Record, queries

from minion_memory.memories.domain import Cursor, Embedding
from minion_memory.memories.store import memory_of
from minion_memory.portability.domain import Exported, Selection

_QUERIES = queries.load(__package__)
_PAGE_ROWS, _PAGE_BYTES = 200, 1024 * 1024


class ExportStore:
    """Reads memories page by page, each in a round trip of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, tenant_id: UUID, selection: Selection, after: Cursor | None
    ) -> tuple[list[Exported], Cursor | None]:
        """Reads the memories that come after a cursor, with the cursor of the next page; None when there is none."""
        rows = await self._database.fetch(
            _QUERIES.export_memories,
            tenant_id,
            selection.agent_id,
            selection.user_id,
            selection.include_vectors,
            after.create_time if after else None,
            after.memory_id if after else None,
            _PAGE_ROWS + 1,
            _PAGE_BYTES,
        )
        exported = [_exported(row) for row in rows[:_PAGE_ROWS]]
        if not rows or rows[0]["row_count"] <= len(exported):
            return exported, None
        last = exported[-1].memory
        return exported, Cursor(last.create_time, last.memory_id)


def _exported(row: Record) -> Exported:
    memory, vector = memory_of(row), row["embedding"]
    embedding = None if vector is None else Embedding(memory.embedding_model, array("f", vector.to_list()))
    return Exported(memory, embedding)
