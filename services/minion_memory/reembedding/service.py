"""What callers do with moves to another model."""

from uuid import UUID

from minion_auth import caller, tenant
from minion_postgres import Database, Idempotent, Key
from uuid_utils.compat import uuid7

from minion_memory.embedding_models.service import EmbeddingModels
from minion_memory.reembedding.domain import Reembedding, not_found
from minion_memory.reembedding.store import ReembeddingStore

_BEGUN = Idempotent(Reembedding, schema="memory")


class Reembeddings:
    """The moves of the caller's tenant."""

    def __init__(self, database: Database, store: ReembeddingStore, models: EmbeddingModels) -> None:
        self._database = database
        self._store = store
        self._models = models

    async def begin(self, to_model: str, key: Key | None) -> Reembedding:
        """Begins to move the tenant's memories to a model.

        Raises:
            NotFound: there is no such model (`EMBEDDING_MODEL_NOT_FOUND`).
            FailedPrecondition: it can't be used yet (`EMBEDDING_MODEL_NOT_READY`), or the memories are being moved
                already (`REEMBEDDING_RUNNING`).
        """
        tenant_id, principal = tenant(), caller().origin
        target = await self._models.named(to_model)
        from_model = await self._models.name_of(tenant_id)
        reembedding_id = UUID(int=uuid7().int)
        async with self._database.transaction(tenant_id) as transaction:
            return await _BEGUN.once(
                transaction,
                key,
                lambda: self._store.begin(transaction, reembedding_id, from_model, target, principal),
            )

    async def get(self, reembedding_id: UUID) -> Reembedding:
        """Gives how far a move is.

        Raises NotFound: the tenant has no such move (`REEMBEDDING_NOT_FOUND`).
        """
        found = await self._store.get(tenant(), reembedding_id)
        if found is None:
            raise not_found(reembedding_id)
        return found
