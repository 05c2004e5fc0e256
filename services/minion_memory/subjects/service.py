"""What is done about users who are to be forgotten, and memories that are old."""

from uuid import UUID

from minion_auth import tenant

from minion_memory.subjects.domain import Receipt, Retention
from minion_memory.subjects.store import SubjectStore


class Subjects:
    """Users whose data is to go."""

    def __init__(self, store: SubjectStore) -> None:
        self._store = store

    async def erase(self, user_id: str, erasure_id: UUID) -> Receipt:
        """Deletes all that is kept of a user in the caller's tenant, part by part.

        One that breaks off has deleted what it came to; another goes on from there.
        """
        tenant_id = tenant()
        erased = await self._store.erase(tenant_id, user_id)
        while not erased.done:
            erased = (await self._store.erase(tenant_id, user_id)).after(erased)
        return Receipt(erasure_id, erased)


class Pruning:
    """Deletes memories that were kept for as long as their type is, of all tenants."""

    def __init__(self, store: SubjectStore, retention: Retention) -> None:
        self._store = store
        self._retention = retention

    async def prune(self) -> int:
        """Deletes what is due now; returns how much that was. Any replica may do it, several at once too."""
        total = 0
        for kind, kept in self._retention.kept.items():
            while tenants := await self._store.with_outlived(kind, kept):
                gone = 0
                for tenant_id in tenants:
                    gone += await self._store.prune(tenant_id, kind, kept)
                total += gone
                if not gone:
                    break
        return total
