"""What goes on beside the searches: writing down which memories they brought."""

import asyncio
from itertools import islice

import structlog
from minion_errors import MinionError

from minion_memory.retrieval.domain import AccessLog
from minion_memory.retrieval.store import RetrievalStore

# Memories that are remembered as brought until they are written down: 8 MB.
ACCESS_LIMIT = 50_000
_PART = 5_000


class AccessWriter:
    """Writes the access log down, tenant by tenant, so that no search waits for a write."""

    def __init__(self, store: RetrievalStore, accesses: AccessLog, *, seconds: float) -> None:
        self._store = store
        self._accesses = accesses
        self._seconds = seconds

    async def run(self) -> None:
        """Writes again and again."""
        while True:
            await asyncio.sleep(self._seconds)
            await self.flush()

    async def flush(self) -> None:
        """Writes what was noted. What can't be written is lost, a little of a count that is no more than a sign."""
        for tenant_id, counts in self._accesses.take():
            noted = iter(counts.items())
            # In parts: a statement holds the memories that it counts, and deletions wait for it.
            while part := dict(islice(noted, _PART)):
                try:
                    await self._store.note_accesses(tenant_id, part)
                except MinionError as error:
                    structlog.get_logger().warning("accesses were not counted", count=len(part), reason=error.reason)
