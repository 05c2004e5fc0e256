"""What callers do with consolidation."""

from dataclasses import replace

from minion_auth import caller, tenant
from minion_postgres import Key

from minion_memory.consolidation.domain import Consolidated, Scope
from minion_memory.consolidation.store import ConsolidationStore
from minion_memory.embedding_models.service import EmbeddingModels


class Consolidation:
    """Memories put in order, in the caller's tenant."""

    def __init__(self, store: ConsolidationStore, models: EmbeddingModels) -> None:
        self._store = store
        self._models = models

    async def consolidate(self, scope: Scope, key: Key | None) -> Consolidated:
        """Puts the memories of an agent and user in order; a dry run only says how, and is not kept for a repeat."""
        # What is kept of the request is about this user, so that erasure finds it.
        kept = None if key is None or scope.dry_run else replace(key, subject=scope.user_id)
        tenant_id, principal = tenant(), caller().origin
        # It writes memories, so it waits, as all who do, while a move to another model ends.
        return await self._models.settled(
            tenant_id, lambda _: self._store.consolidate(tenant_id, scope, principal, kept)
        )
