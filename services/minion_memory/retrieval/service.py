"""How callers find memories."""

from array import array

from minion_auth import tenant
from minion_errors import InvalidArgument, NotFound, Unavailable, Violation

from minion_memory.memories.domain import EmbeddingModel, vector_fault
from minion_memory.memories.peer import Gateway
from minion_memory.memories.store import EmbeddingModels
from minion_memory.retrieval.domain import AccessLog, Found, Search, in_first_person
from minion_memory.retrieval.store import RetrievalStore


class Retrieval:
    """Searches in the caller's tenant."""

    def __init__(
        self,
        store: RetrievalStore,
        models: EmbeddingModels,
        gateway: Gateway,
        accesses: AccessLog,
        *,
        default_model: str,
    ) -> None:
        self._store = store
        self._models = models
        self._gateway = gateway
        self._accesses = accesses
        self._default_model = default_model

    async def search(self, search: Search) -> Found:
        """Finds the memories of an agent and user that fit best, by meaning and by words; by words alone while the
        query can't be embedded.

        Raises:
            InvalidArgument: the vector has not its model's shape (`VECTOR_INVALID`).
            NotFound: the vector's model isn't known (`EMBEDDING_MODEL_NOT_FOUND`).
        """
        tenant_id = tenant()
        given = search.embedding
        model = await self._model(given.model if given else self._default_model)
        vector: array[float] | None
        if given:
            if fault := vector_fault(given.values, model.dimension):
                raise InvalidArgument(
                    "The vector can't be used.", reason="VECTOR_INVALID", violations=[Violation("vector.values", fault)]
                )
            vector = given.values
        else:
            names = await self._store.named_speakers(tenant_id, search)
            vector = await self._embedded(in_first_person(search.query, names), model)
        found = await self._store.search(tenant_id, search, model, vector)
        self._accesses.note(tenant_id, [hit.memory.memory_id for hit in found.hits])
        return found

    async def _embedded(self, text: str, model: EmbeddingModel) -> "array[float] | None":
        try:
            return (await self._gateway.embed([text], model=model.name, dimension=model.dimension))[0]
        except Unavailable:
            return None

    async def _model(self, name: str) -> EmbeddingModel:
        model = await self._models.find(name)
        if model is None:
            raise NotFound(
                f"There is no embedding model {name!r}.",
                reason="EMBEDDING_MODEL_NOT_FOUND",
                metadata={"embedding_model": name},
            )
        return model
