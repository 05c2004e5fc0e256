"""How callers find memories."""

from array import array
from uuid import UUID

from minion_auth import tenant
from minion_errors import FailedPrecondition, InvalidArgument, Unavailable, Violation
from minion_telemetry import Telemetry, attributes

from minion_memory.embedding_models.domain import Chosen, EmbeddingModel
from minion_memory.embedding_models.service import EmbeddingModels
from minion_memory.memories.domain import vector_fault
from minion_memory.memories.peer import Gateway
from minion_memory.retrieval.domain import AccessLog, Found, Search, in_first_person
from minion_memory.retrieval.metrics import RetrievalMetrics
from minion_memory.retrieval.store import RetrievalStore


class Retrieval:
    """Searches in the caller's tenant."""

    def __init__(
        self,
        store: RetrievalStore,
        models: EmbeddingModels,
        gateway: Gateway,
        accesses: AccessLog,
        telemetry: Telemetry,
        metrics: RetrievalMetrics,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._models = models
        self._gateway = gateway
        self._accesses = accesses
        self._telemetry = telemetry

    async def search(self, search: Search) -> Found:
        """Finds the memories of an agent and user that fit best, by meaning and by words; by words alone while the
        query can't be embedded.

        A vector of another model than the tenant's own is left aside where there is a text, which is embedded instead.

        Raises:
            InvalidArgument: the vector has not its model's shape (`VECTOR_INVALID`).
            NotFound: the vector's model isn't known (`EMBEDDING_MODEL_NOT_FOUND`).
            FailedPrecondition: the vector's model can't be used yet (`EMBEDDING_MODEL_NOT_READY`), or the memories have
                no vectors of it, and there is no text (`REEMBEDDING_NEEDED`).
        """
        tenant_id = tenant()
        operation = attributes.OPERATION_SEARCH_MEMORY
        with self._telemetry.span(
            operation,
            {
                attributes.GEN_AI_OPERATION_NAME: operation,
                attributes.GEN_AI_MEMORY_STORE_ID: str(search.agent_id),
            },
        ) as span:
            self._telemetry.content.write_text(span, attributes.GEN_AI_MEMORY_QUERY_TEXT, search.query)
            found = await self._models.settled(tenant_id, lambda chosen: self._found(tenant_id, search, chosen))
            span.set_attribute(attributes.GEN_AI_MEMORY_RECORD_COUNT, len(found.hits))
            span.set_attribute(attributes.MINION_MEMORY_PLAN, found.plan.value)
        self._metrics.searched(found.plan)
        self._accesses.note(tenant_id, [hit.memory.memory_id for hit in found.hits])
        return found

    async def _found(self, tenant_id: UUID, search: Search, chosen: Chosen) -> Found:
        if given := search.embedding:
            model = await self._models.named(given.model)
            if fault := vector_fault(given.values, model.dimension):
                raise InvalidArgument(
                    "The vector can't be used.", reason="VECTOR_INVALID", violations=[Violation("vector.values", fault)]
                )
            if chosen.takes(model.name):
                return await self._store.search(tenant_id, search, model, given.values)
            if not search.query:
                raise FailedPrecondition(
                    f"The memories are embedded with {chosen.name!r}: give a text, or a vector of that model.",
                    reason="REEMBEDDING_NEEDED",
                    metadata={"embedding_model": model.name, "default_model": chosen.name},
                )
        model = await self._models.named(chosen.name)
        names = await self._store.named_speakers(tenant_id, search)
        vector = await self._embedded(in_first_person(search.query, names), model)
        return await self._store.search(tenant_id, search, model, vector)

    async def _embedded(self, text: str, model: EmbeddingModel) -> "array[float] | None":
        try:
            return (await self._gateway.embed([text], model=model.name, dimension=model.dimension))[0]
        except (Unavailable, InvalidArgument):
            # Nobody answers just now, or the model doesn't take such a text: its words are looked up all the same.
            return None
