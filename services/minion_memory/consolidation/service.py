"""What callers do with consolidation."""

from dataclasses import replace

from minion_auth import caller, tenant
from minion_postgres import Key

from minion_memory.consolidation.domain import Consolidated, Scope
from minion_memory.consolidation.store import ConsolidationStore


class Consolidation:
    """Memories put in order, in the caller's tenant."""

    def __init__(self, store: ConsolidationStore) -> None:
        self._store = store

    async def consolidate(self, scope: Scope, key: Key | None) -> Consolidated:
        """Puts the memories of an agent and user in order; a dry run only says how, and is not kept for a repeat."""
        # What is kept of the request is about this user, so that erasure finds it.
        kept = None if key is None or scope.dry_run else replace(key, subject=scope.user_id)
        return await self._store.consolidate(tenant(), scope, caller().origin, kept)
