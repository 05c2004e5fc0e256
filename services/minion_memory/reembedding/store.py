"""Moves to another model, and memories that wait for a vector, in Postgres."""

from array import array
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from minion_postgres import Database, Record, Transaction, queries

from minion_memory.embedding_models.domain import EmbeddingModel
from minion_memory.memories.store import packed
from minion_memory.reembedding.domain import (
    Lease,
    Move,
    PassEnd,
    Reembedding,
    ReembeddingState,
    Text,
)

_QUERIES = queries.load(__package__)
Vectors = Sequence["array[float]"]


class ReembeddingStore:
    """Reads and writes moves; what a worker writes counts only while it holds the lease."""

    def __init__(self, database: Database, *, lease_seconds: float) -> None:
        self._database = database
        self._hold = timedelta(seconds=lease_seconds)

    async def begin(
        self, transaction: Transaction, reembedding_id: UUID, from_model: str, target: EmbeddingModel, principal: str
    ) -> Reembedding:
        """Begins a move. Raises FailedPrecondition (REEMBEDDING_RUNNING) when one is under way."""
        tenant_id = transaction.tenant_id
        await transaction.execute(
            _QUERIES.begin_reembedding, tenant_id, reembedding_id, from_model, target.model_id, principal
        )
        row = await transaction.fetch_one(_QUERIES.get_reembedding, tenant_id, reembedding_id)
        assert row is not None
        return _reembedding(row)

    async def get(self, tenant_id: UUID, reembedding_id: UUID) -> Reembedding | None:
        """Reads a move."""
        row = await self._database.fetch_one(_QUERIES.get_reembedding, tenant_id, reembedding_id)
        return None if row is None else _reembedding(row)

    async def lease(self) -> Lease | None:
        """Leases a move that nobody works at, of any tenant."""
        row = await self._database.fetch_one(_QUERIES.lease_reembedding, self._hold)
        return None if row is None else Lease(row["tenant_id"], row["reembedding_id"], row["epoch"])

    async def read(self, lease: Lease) -> Move | None:
        """Reads what is to be known of a leased move; None when the lease is lost."""
        row = await self._database.fetch_one(_QUERIES.read_reembedding, *_key(lease))
        return None if row is None else Move(row["target"], row["principal"], row["failure_count"], row["stuck"])

    async def pick(self, lease: Lease, most: int, most_bytes: int) -> list[Text]:
        """Reads the pass's next memories without the new vector; none at its end."""
        rows = await self._database.fetch(_QUERIES.pick_reembedding, *_key(lease), most, most_bytes)
        return [_text(row) for row in rows]

    async def place(self, lease: Lease, texts: Sequence[Text], vectors: Vectors) -> bool:
        """Places new vectors where the content is still the same; false when the lease is lost."""
        placed = await self._database.fetch_value(
            _QUERIES.place_reembedding, *_key(lease), self._hold, *_columns(texts, vectors)
        )
        return bool(placed)

    async def close(self, lease: Lease, span: timedelta) -> bool:
        """Keeps writers out for a moment; false when the lease is lost."""
        return bool(await self._database.fetch_value(_QUERIES.close_reembedding, *_key(lease), span))

    async def end_pass(self, lease: Lease) -> PassEnd:
        """Ends a pass, and the move with it where no memory lacks the new vector."""
        return PassEnd(await self._database.fetch_value(_QUERIES.end_pass, *_key(lease), self._hold))

    async def defer(self, lease: Lease, pause: timedelta, error: str) -> None:
        """Lets go of a move for a while; an empty `error` says that nothing was in the way."""
        await self._database.execute(_QUERIES.defer_reembedding, *_key(lease), pause, error)

    async def fail(self, lease: Lease, error: str) -> None:
        """Gives a move up."""
        await self._database.execute(_QUERIES.fail_reembedding, *_key(lease), error)


class UnembeddedStore:
    """Reads memories that have no vector, and gives them one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pick(self, most: int) -> dict[UUID, list[UUID]]:
        """Picks memories that are due, by tenant; they are due again after a while that grows with each time."""
        picked: dict[UUID, list[UUID]] = defaultdict(list)
        for row in await self._database.fetch(_QUERIES.pick_unembedded, most):
            picked[row["tenant_id"]].append(row["memory_id"])
        return picked

    async def read(self, tenant_id: UUID, ids: Sequence[UUID], most_bytes: int) -> list[Text]:
        """Reads what is to be embedded, so many bytes at most; one memory comes in any case."""
        return [_text(row) for row in await self._database.fetch(_QUERIES.read_unembedded, tenant_id, ids, most_bytes)]

    async def place(self, tenant_id: UUID, model: EmbeddingModel, texts: Sequence[Text], vectors: Vectors) -> int:
        """Places vectors where the content is still the same; gives how many.

        Raises Aborted (EMBEDDING_MODEL_MOVED) when the tenant has another model now.
        """
        placed = await self._database.fetch_value(
            _QUERIES.place_unembedded, tenant_id, model.model_id, *_columns(texts, vectors)
        )
        return int(placed)

    async def give_back(self, tenant_id: UUID, ids: Sequence[UUID], pause: timedelta) -> None:
        """Makes memories due after a pause, as if they had not been picked."""
        await self._database.execute(_QUERIES.return_unembedded, tenant_id, ids, pause)


def _key(lease: Lease) -> tuple[UUID, UUID, int]:
    return lease.tenant_id, lease.reembedding_id, lease.epoch


def _columns(texts: Sequence[Text], vectors: Vectors) -> tuple[object, object, object]:
    return (
        [text.memory_id for text in texts],
        [text.digest for text in texts],
        [packed(vector) for vector in vectors],
    )


def _text(row: Record) -> Text:
    return Text(row["memory_id"], row["content"], row["digest"])


def _reembedding(row: Record) -> Reembedding:
    return Reembedding(
        row["reembedding_id"],
        row["from_model"],
        row["to_model"],
        ReembeddingState(row["state"]),
        row["memory_count"],
        row["done_count"],
        row["error"],
        row["create_time"],
        row["update_time"],
    )
