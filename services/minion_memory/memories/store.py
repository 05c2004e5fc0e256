"""Memories and their vectors in Postgres."""

import enum
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import numpy as np
from minion_errors import AlreadyExists, InvalidArgument, Violation
from minion_postgres import Connection, Database, Key, Record, queries
from pgvector import Vector

from minion_memory.embedding_models.domain import EmbeddingModel
from minion_memory.memories.domain import (
    NO_SOURCE,
    Change,
    Cursor,
    Filters,
    Memory,
    MemoryType,
    NewMemory,
    Outcome,
    Page,
    Source,
    Trust,
    Update,
    measurable,
    revision_of,
)

_QUERIES = queries.load(__package__)
_TYPES = {kind.value: kind for kind in MemoryType}
_TRUSTS = {trust.value: trust for trust in Trust}
# What a page, or the hits of a search, may weigh, so that a client's 4 MiB hold it.
REPLY_BYTES = 3 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Placed:
    """A memory to store, with its vector and its model, or with neither while it can't be embedded.

    `given` says that the caller made the vector.
    """

    memory: NewMemory
    model: EmbeddingModel | None
    vector: Sequence[float] | None
    given: bool


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one memory of a batch."""

    memory_id: UUID
    outcome: Outcome
    embedding_model: str
    create_time: datetime
    update_time: datetime
    valid_from: datetime
    occur_time: datetime
    superseded_by: UUID | None
    access_count: int
    access_time: datetime | None
    revision: int


async def prepare(connection: Connection) -> None:
    """Teaches a new connection pgvector's type.

    The package's own `register_vector` does so for two more types, at a round trip each.
    """
    await connection.set_type_codec(
        "vector", schema="public", format="binary", encoder=Vector.to_binary, decoder=Vector.from_binary
    )


class MemoryStore:
    """Reads and writes memories, each operation in one round trip."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store(
        self, tenant_id: UUID, batch: Sequence[Placed], change: Change, key: Key | None, *, first: int = 0
    ) -> tuple[Receipt, ...]:
        """Stores a batch, all or none; `first` is what the caller counts the first of it as.

        Raises AlreadyExists (MEMORY_ID_TAKEN) when another memory has a proposed id, and InvalidArgument when one would
        end before it begins.
        """
        items = [item_of(placed) for placed in batch]
        vectors = [None if placed.vector is None else packed(placed.vector) for placed in batch]
        try:
            stored = await self._database.fetch_value(
                _QUERIES.store_memories,
                tenant_id,
                *request_of(key),
                items,
                vectors,
                change.cause.value,
                change.reason,
                change.principal,
            )
        except InvalidArgument as error:
            raise _with_field(error, first) from error
        except asyncpg.UniqueViolationError as error:
            # The id is the key of both tables, and either may be written first.
            if not str(error.constraint_name).startswith(("memories_pkey", "memory_vectors_")):
                raise
            raise AlreadyExists("A proposed id is another memory's.", reason="MEMORY_ID_TAKEN") from error
        return _receipts(stored)

    async def recall_store(self, tenant_id: UUID, key: Key) -> tuple[Receipt, ...] | None:
        """Gives the first result of a request that was stored before."""
        stored = await self._database.fetch_value(_QUERIES.recall_store, tenant_id, *request_of(key))
        return None if stored is None else _receipts(stored)

    async def get(self, tenant_id: UUID, memory_id: UUID) -> Memory | None:
        """Reads a memory."""
        row = await self._database.fetch_one(_QUERIES.get_memory, tenant_id, memory_id)
        return None if row is None else memory_of(row)

    async def get_by_key(self, tenant_id: UUID, agent_id: UUID, user_id: str, key: str) -> Memory | None:
        """Reads a memory by what it is filed under."""
        row = await self._database.fetch_one(_QUERIES.get_memory_by_key, tenant_id, agent_id, user_id, key)
        return None if row is None else memory_of(row)

    async def recall_change(self, tenant_id: UUID, key: Key) -> Memory | None:
        """Gives the first result of a change that was made before under the same request."""
        row = await self._database.fetch_one(_QUERIES.recall_change, tenant_id, key.request_id, key.method, key.digest)
        return None if row is None else memory_of(row)

    async def update(
        self,
        tenant_id: UUID,
        update: Update,
        model: EmbeddingModel | None,
        vector: Sequence[float] | None,
        change: Change,
        key: Key | None,
    ) -> Memory | None:
        """Changes a memory, which makes its next revision; None when there is none.

        Raises Aborted (ETAG_MISMATCH) when it is in another revision, and InvalidArgument when it would end before it
        begins.
        """
        try:
            row = await self._database.fetch_one(
                _QUERIES.change_memory,
                tenant_id,
                *request_of(key),
                update.memory_id,
                revision_of(update.etag),
                columns_of(update.values),
                model.model_id if model else None,
                None if vector is None else packed(vector),
                change.cause.value,
                change.reason,
                change.principal,
            )
        except InvalidArgument as error:
            raise _with_field(error, 0) from error
        return None if row is None else memory_of(row)

    async def list(self, tenant_id: UUID, filters: Filters, after: Cursor | None, limit: int) -> Page:
        """Reads a page of at most `limit` memories and 3 MiB, newest first."""
        rows = await self._database.fetch(
            _QUERIES.list_memories,
            tenant_id,
            filters.agent_id,
            filters.user_id,
            filters.type.value if filters.type else None,
            filters.session_id,
            dict(filters.labels) or None,
            filters.include_ended,
            after.create_time if after else None,
            after.memory_id if after else None,
            limit + 1,
            REPLY_BYTES,
        )
        memories = tuple(memory_of(row) for row in rows[:limit])
        return Page(memories, more=bool(rows) and rows[0]["row_count"] > len(memories))

    async def delete(self, tenant_id: UUID, memory_id: UUID, key: Key | None) -> bool:
        """Deletes a memory; false when there is none."""
        return bool(await self._database.fetch_value(_QUERIES.delete_memory, tenant_id, *request_of(key), memory_id))


def packed(vector: Sequence[float]) -> Vector:
    """Makes a vector as pgvector takes it; of an array by way of numpy, which hands it over without looking at each."""
    fit = measurable(vector)
    return Vector(np.frombuffer(fit, dtype=np.float32) if isinstance(fit, array) else list(fit))


def request_of(key: Key | None) -> tuple[UUID | None, bytes | None]:
    """Gives id and digest of a request as SQL takes them."""
    return (None, None) if key is None else (key.request_id, key.digest)


def columns_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Writes fields of a memory as memory.store_item names them."""
    columns: dict[str, Any] = {}
    for name, value in values.items():
        match value:
            case Source():
                columns["source_session"] = str(value.session_id) if value.session_id else None
                columns["source_sequences"] = list(value.message_sequences)
                columns["source_quote"] = value.quote
            case enum.Enum():
                columns[name] = value.value
            case Mapping():
                columns[name] = dict(value)
            case _:
                columns[name] = value
    return columns


def item_of(placed: Placed) -> dict[str, Any]:
    """Writes a memory to store, as memory.store_memories takes it."""
    memory = placed.memory
    source = memory.source
    return {
        "memory_id": str(memory.memory_id),
        "agent_id": str(memory.agent_id),
        "user_id": memory.user_id,
        "key": memory.key,
        "type": memory.type.value,
        "content": memory.content,
        "speaker": memory.speaker,
        "importance": memory.importance,
        "confidence": memory.confidence,
        "trust": memory.trust.value,
        "labels": dict(memory.labels),
        "metadata": dict(memory.metadata),
        "source_session": str(source.session_id) if source.session_id else None,
        "source_sequences": list(source.message_sequences),
        "source_quote": source.quote,
        "valid_from": memory.valid_from,
        "valid_until": memory.valid_until,
        "occur_time": memory.occur_time,
        "create_time": memory.create_time,
        "superseded_by": str(memory.superseded_by) if memory.superseded_by else None,
        "model_id": placed.model.model_id if placed.model else None,
        "vector_given": placed.given,
    }


def _receipts(stored: Sequence[Mapping[str, Any]]) -> tuple[Receipt, ...]:
    return tuple(_receipt(item) for item in stored)


def _receipt(item: Mapping[str, Any]) -> Receipt:
    # Results are kept for a day: those of the release before hold id, outcome and the first two times alone.
    create_time = datetime.fromisoformat(item["create_time"])
    return Receipt(
        memory_id=UUID(item["memory_id"]),
        outcome=Outcome(item["outcome"]),
        embedding_model=item.get("embedding_model", ""),
        create_time=create_time,
        update_time=datetime.fromisoformat(item["update_time"]),
        valid_from=_moment(item.get("valid_from")) or create_time,
        occur_time=_moment(item.get("occur_time")) or create_time,
        superseded_by=UUID(item["superseded_by"]) if item.get("superseded_by") else None,
        access_count=item.get("access_count", 0),
        access_time=_moment(item.get("access_time")),
        revision=item.get("revision", 1),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _with_field(error: InvalidArgument, first: int) -> InvalidArgument:
    """Puts the memory that SQL found fault with where a caller looks for it."""
    if error.reason != "ILL_TIMED":
        return error
    position = error.metadata.get("position")
    memory = "memory" if position is None else f"memories[{first + int(position)}].memory"
    return InvalidArgument(
        "The request is malformed: a memory would end before it begins.",
        violations=[Violation(f"{memory}.valid_until", "must not be before valid_from")],
    )


def memory_of(row: Record, model: str = "") -> Memory:
    """Reads a row of memory.memory_details, or of memory.revision_details.

    Rows of a search have NULL for what is empty, for times that are those of creation, and for the model that was asked
    for, which is `model`: decoding each costs time.
    """
    embedding_model = row["embedding_model"]
    create_time = row["create_time"]
    return Memory(
        memory_id=row["memory_id"],
        agent_id=row["agent_id"],
        user_id=row["user_id"],
        key=row["key"],
        type=_TYPES[row["type"]],
        content=row["content"],
        speaker=row["speaker"],
        importance=row["importance"],
        confidence=row["confidence"],
        trust=_TRUSTS[row["trust"]],
        labels=row["labels"] or {},
        metadata=row["metadata"] or {},
        source=_source(row["source_session"], row["source_sequences"], row["source_quote"]),
        embedding_model=model if embedding_model is None else embedding_model,
        create_time=create_time,
        update_time=row["update_time"] or create_time,
        valid_from=row["valid_from"] or create_time,
        valid_until=row["valid_until"],
        occur_time=row["occur_time"] or create_time,
        superseded_by=row["superseded_by"],
        access_count=row["access_count"],
        access_time=row["access_time"],
        revision=row["revision"],
    )


def _source(session_id: UUID | None, sequences: Sequence[int] | None, quote: str) -> Source:
    if session_id is None and not sequences and not quote:
        return NO_SOURCE
    return Source(session_id, tuple(sequences or ()), quote)
