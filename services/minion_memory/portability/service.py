"""What callers do to move memories."""

from collections.abc import AsyncIterator
from uuid import UUID

from minion_auth import tenant
from minion_errors import MinionError

from minion_memory.memories.domain import NewMemory
from minion_memory.memories.service import Memories
from minion_memory.portability.domain import Exported, Imported, Selection
from minion_memory.portability.store import ExportStore

_BATCH_ROWS, _BATCH_BYTES = 100, 1024 * 1024


class Portability:
    """Memories on their way, in the caller's tenant."""

    def __init__(self, store: ExportStore, memories: Memories) -> None:
        self._store = store
        self._memories = memories

    async def export(self, selection: Selection) -> AsyncIterator[Exported]:
        """Gives the memories that there are when it begins, newest first; nothing is locked meanwhile."""
        tenant_id = tenant()
        page, cursor = await self._store.page(tenant_id, selection, None)
        while True:
            for exported in page:
                yield exported
            if cursor is None:
                return
            page, cursor = await self._store.page(tenant_id, selection, cursor)

    async def take_in(self, memories: AsyncIterator[NewMemory]) -> Imported:
        """Stores a stream of memories in batches of 100, each all or none.

        Raises what storing raises; `imported_count` in its metadata says how many were stored before.
        """
        imported = Imported()
        try:
            async for batch in _batches(memories):
                stored = await self._memories.store(batch, None, first=imported.total)
                imported = imported.plus(one.outcome for one in stored)
        except MinionError as error:
            error.metadata["imported_count"] = str(imported.total)
            raise
        return imported


async def _batches(memories: AsyncIterator[NewMemory]) -> AsyncIterator[list[NewMemory]]:
    """Gathers as much as may be stored at once; what comes twice comes in turn, so that the later one holds."""
    batch: list[NewMemory] = []
    size = 0
    keys: set[tuple[UUID, str, str]] = set()
    ids: set[UUID] = set()
    async for memory in memories:
        key, weight = (memory.agent_id, memory.user_id, memory.key), len(memory.content.encode())
        full = len(batch) == _BATCH_ROWS or size + weight > _BATCH_BYTES
        if batch and (full or key in keys or memory.memory_id in ids):
            yield batch
            batch, size, keys, ids = [], 0, set(), set()
        batch.append(memory)
        size += weight
        keys.add(key)
        ids.add(memory.memory_id)
    if batch:
        yield batch
