"""What callers do with memories."""

from array import array
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from datetime import datetime
from uuid import UUID

from minion_auth import caller, tenant
from minion_errors import InvalidArgument, NotFound, Unavailable, Violation
from minion_postgres import Key, pages
from minion_telemetry import Telemetry, attributes
from opentelemetry.trace import Span

from minion_memory.embedding_models.domain import Chosen, EmbeddingModel
from minion_memory.embedding_models.service import EmbeddingModels
from minion_memory.memories.domain import (
    Cause,
    Change,
    Cursor,
    Embedding,
    Filters,
    Memory,
    NewMemory,
    Page,
    Remembered,
    Stored,
    Update,
    vector_fault,
)
from minion_memory.memories.peer import Gateway
from minion_memory.memories.store import MemoryStore, Placed, Receipt

# What the reply to a store takes from the request, and from the receipt.
_SAID = tuple(field.name for field in fields(Remembered) if field.name != "memory_id")
_GIVEN = tuple(field.name for field in fields(Receipt) if field.name != "outcome")


class Memories:
    """What agents remember, in the caller's tenant."""

    def __init__(self, store: MemoryStore, models: EmbeddingModels, gateway: Gateway, telemetry: Telemetry) -> None:
        self._store = store
        self._models = models
        self._gateway = gateway
        self._telemetry = telemetry

    async def store(self, batch: Sequence[NewMemory], key: Key | None, *, first: int = 0) -> tuple[Stored, ...]:
        """Stores memories, all or none; those that come without a vector are embedded first, with nothing locked.

        While they can't be embedded they are stored without, to be embedded later. In a tenant with a model of its own
        a vector of another one is left aside, and the content embedded. `first` is what the caller counts the first of
        them as.

        Raises:
            InvalidArgument: a vector has not its model's shape (`VECTOR_INVALID`).
            NotFound: a vector's model isn't known (`EMBEDDING_MODEL_NOT_FOUND`).
            FailedPrecondition: a vector's model can't be used yet (`EMBEDDING_MODEL_NOT_READY`).
            AlreadyExists: a proposed id is another memory's (`MEMORY_ID_TAKEN`).
        """
        tenant_id = tenant()
        agents = {memory.agent_id for memory in batch}
        with self._span(attributes.OPERATION_UPSERT_MEMORY, count=len(batch)) as span:
            if len(agents) == 1:
                span.set_attribute(attributes.GEN_AI_MEMORY_STORE_ID, str(agents.pop()))
            return await self._models.settled(
                tenant_id, lambda chosen: self._stored(tenant_id, batch, key, first, chosen)
            )

    async def _stored(
        self, tenant_id: UUID, batch: Sequence[NewMemory], key: Key | None, first: int, chosen: Chosen
    ) -> tuple[Stored, ...]:
        given = {index: memory.embedding for index, memory in enumerate(batch) if memory.embedding}
        models = {name: await self._models.named(name) for name in sorted({one.model for one in given.values()})}
        _check(
            {
                f"memories[{first + index}].embedding.values": (embedding, models[embedding.model])
                for index, embedding in given.items()
            }
        )
        placed = {
            index: Placed(batch[index], models[embedding.model], embedding.values, given=True)
            for index, embedding in given.items()
            if chosen.takes(embedding.model)
        }
        silent = [index for index in range(len(batch)) if index not in placed]
        if silent:
            receipts = await self._store.recall_store(tenant_id, key) if key else None
            if receipts is not None:
                return _stored(batch, receipts)
            model = await self._models.named(chosen.name)
            made = await self._embedded([batch[index].content for index in silent], model)
            placed |= {
                index: Placed(batch[index], model if made else None, made[at] if made else None, given=False)
                for at, index in enumerate(silent)
            }
        change = Change(Cause.STORED, caller().origin)
        items = [placed[index] for index in range(len(batch))]
        return _stored(batch, await self._store.store(tenant_id, items, change, key, first=first))

    async def get(self, memory_id: UUID) -> Memory:
        """Gives a memory.

        Raises:
            NotFound: there is none (`MEMORY_NOT_FOUND`).
        """
        memory = await self._store.get(tenant(), memory_id)
        if memory is None:
            raise not_found(memory_id)
        return memory

    async def get_by_key(self, agent_id: UUID, user_id: str, key: str) -> Memory:
        """Gives a memory by what it is filed under.

        Raises:
            NotFound: there is none (`MEMORY_NOT_FOUND`).
        """
        memory = await self._store.get_by_key(tenant(), agent_id, user_id, key)
        if memory is None:
            raise NotFound("There is no such memory.", reason="MEMORY_NOT_FOUND", metadata={"agent_id": str(agent_id)})
        return memory

    async def update(self, update: Update, key: Key | None) -> Memory:
        """Changes a memory; a new content is embedded first, or stored without a vector while it can't be.

        Raises:
            InvalidArgument: the vector has not its model's shape (`VECTOR_INVALID`), or the memory would end before it
                begins.
            NotFound: there is none (`MEMORY_NOT_FOUND`), or the vector's model isn't known
                (`EMBEDDING_MODEL_NOT_FOUND`).
            FailedPrecondition: the vector's model can't be used yet (`EMBEDDING_MODEL_NOT_READY`).
            Aborted: it changed since it was read (`ETAG_MISMATCH`).
        """
        tenant_id = tenant()
        with self._span(attributes.OPERATION_UPDATE_MEMORY, memory_id=update.memory_id):
            return await self._models.settled(tenant_id, lambda chosen: self._updated(tenant_id, update, key, chosen))

    async def _updated(self, tenant_id: UUID, update: Update, key: Key | None, chosen: Chosen) -> Memory:
        model, vector = None, None
        if update.embedding:
            given = await self._models.named(update.embedding.model)
            _check({"embedding.values": (update.embedding, given)})
            if chosen.takes(given.name):
                model, vector = given, update.embedding.values
        if vector is None and "content" in update.values:
            if key and (done := await self._store.recall_change(tenant_id, key)):
                return done
            known = await self.get(update.memory_id)
            if known.content != update.values["content"]:
                model, vector = await self.embedded(update.values["content"], chosen)
        change = Change(Cause.UPDATED, caller().origin, update.reason)
        memory = await self._store.update(tenant_id, update, model, vector, change, key)
        if memory is None:
            raise not_found(update.memory_id)
        return memory

    async def embedded(self, content: str, chosen: Chosen) -> "tuple[EmbeddingModel | None, array[float] | None]":
        """Makes the vector of a content by the tenant's model; neither while it can't be made."""
        model = await self._models.named(chosen.name)
        made = await self._embedded([content], model)
        return (model, made[0]) if made else (None, None)

    async def list(self, filters: Filters, *, page_size: int, page_token: str) -> tuple[Page, str]:
        """Lists memories, newest first, with the token of the next page (empty on the last).

        Raises:
            InvalidArgument: the token is not of this list (`PAGE_TOKEN_INVALID`).
        """
        bound: dict[str, object] = {
            "agent_id": str(filters.agent_id) if filters.agent_id else None,
            "user_id": filters.user_id,
            "type": filters.type.value if filters.type else None,
        }
        # Filters that came later are named where they are set alone, so that tokens of the release before still hold.
        if filters.session_id or filters.labels or filters.include_ended:
            bound["later"] = [str(filters.session_id), sorted(filters.labels.items()), filters.include_ended]
        after = None
        if page_token:
            create_time, memory_id = pages.decode(page_token, bound, (datetime, UUID))
            assert isinstance(create_time, datetime)
            assert isinstance(memory_id, UUID)
            after = Cursor(create_time, memory_id)
        page = await self._store.list(tenant(), filters, after, page_size)
        if not page.more:
            return page, ""
        last = page.memories[-1]
        return page, pages.encode((last.create_time, last.memory_id), bound)

    async def delete(self, memory_id: UUID, key: Key | None) -> None:
        """Deletes a memory.

        Raises:
            NotFound: there is none (`MEMORY_NOT_FOUND`).
        """
        with self._span(attributes.OPERATION_DELETE_MEMORY, memory_id=memory_id):
            if not await self._store.delete(tenant(), memory_id, key):
                raise not_found(memory_id)

    def _span(self, operation: str, *, memory_id: UUID | None = None, count: int = 1) -> AbstractContextManager[Span]:
        named: dict[str, str | int] = {} if memory_id is None else {attributes.GEN_AI_MEMORY_RECORD_ID: str(memory_id)}
        return self._telemetry.span(
            operation,
            {
                attributes.GEN_AI_OPERATION_NAME: operation,
                attributes.GEN_AI_MEMORY_RECORD_COUNT: count,
                **named,
            },
        )

    async def _embedded(self, texts: Sequence[str], model: EmbeddingModel) -> "Sequence[array[float]] | None":
        """Makes vectors of texts; None while that can't be done."""
        try:
            return await self._gateway.embed(texts, model=model.name, dimension=model.dimension)
        except Unavailable:
            return None


def _check(vectors: Mapping[str, tuple[Embedding, EmbeddingModel]]) -> None:
    found = {
        field: fault
        for field, (embedding, model) in vectors.items()
        if (fault := vector_fault(embedding.values, model.dimension))
    }
    if found:
        raise InvalidArgument(
            f"{len(found)} of the vectors can't be used.",
            reason="VECTOR_INVALID",
            violations=[Violation(field, fault) for field, fault in found.items()],
        )


def _stored(batch: Sequence[NewMemory], receipts: Sequence[Receipt]) -> tuple[Stored, ...]:
    return tuple(
        Stored(
            Memory(
                **{name: getattr(memory, name) for name in _SAID},
                **{name: getattr(receipt, name) for name in _GIVEN},
            ),
            receipt.outcome,
        )
        for memory, receipt in zip(batch, receipts, strict=True)
    )


def not_found(memory_id: UUID) -> NotFound:
    """Builds the error for a memory that isn't there."""
    return NotFound("There is no such memory.", reason="MEMORY_NOT_FOUND", metadata={"memory_id": str(memory_id)})
