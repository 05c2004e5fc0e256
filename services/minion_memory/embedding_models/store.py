"""Embedding models in Postgres, and the tenants' choices."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from minion_postgres import Database, Record, queries

from minion_memory.embedding_models.domain import EmbeddingModel, NewModel, RegisteredModel

_QUERIES = queries.load(__package__)
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '3s'"


@dataclass(frozen=True, slots=True)
class Sweep:
    """A tenant whose vectors of other models are to be removed; `epoch` is that of its choice."""

    tenant_id: UUID
    epoch: int


class EmbeddingModelStore:
    """Reads and registers models, and reads and writes which one a tenant uses."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[RegisteredModel]:
        """Reads every model."""
        return [_registered(row) for row in await self._database.fetch(_QUERIES.all_embedding_models)]

    async def page(self, after: str, limit: int) -> list[RegisteredModel]:
        """Reads the models after a name, by name."""
        rows = await self._database.fetch(_QUERIES.list_embedding_models, after, limit)
        return [_registered(row) for row in rows]

    async def register(self, new: NewModel) -> RegisteredModel:
        """Registers a model, or finds the one of this name."""
        row = await self._database.fetch_one(_QUERIES.register_embedding_model, new.name, new.dimension)
        assert row is not None
        return _registered(row)

    async def choice(self, tenant_id: UUID) -> int | None:
        """Reads which model a tenant chose."""
        chosen = await self._database.fetch_value(_QUERIES.get_tenant_model, tenant_id)
        return None if chosen is None else int(chosen)

    async def choose(self, tenant_id: UUID, model: EmbeddingModel) -> None:
        """Makes a model the tenant's.

        Raises FailedPrecondition: memories lack its vector (REEMBEDDING_NEEDED), or are being moved
        (REEMBEDDING_RUNNING).
        """
        await self._database.execute(_QUERIES.set_tenant_model, tenant_id, model.model_id)

    async def claim_sweeps(self, most: int, hold: timedelta) -> list[Sweep]:
        """Takes tenants whose vectors of other models are to be removed, and keeps other replicas off them."""
        rows = await self._database.fetch(_QUERIES.claim_sweeps, most, hold)
        return [Sweep(row["tenant_id"], row["epoch"]) for row in rows]

    async def sweep(self, sweep: Sweep, after: UUID, most: int, hold: timedelta) -> UUID | None:
        """Sweeps a tenant's next memories; gives the last one's id, None when all are done."""
        last = await self._database.fetch_value(_QUERIES.sweep_vectors, sweep.tenant_id, sweep.epoch, after, most, hold)
        return last if isinstance(last, UUID) else None


class InstallStore:
    """Makes room for models' vectors; its database is the owner's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def install(self) -> Sequence[str]:
        """Makes partition and index of every model that has none; returns the models' names.

        Raises Aborted (TRANSACTION_CONFLICT) rather than make others wait for it.
        """
        async with self._database.transaction(None) as transaction:
            await transaction.execute(_LOCK_TIMEOUT)
            rows = await transaction.fetch(_QUERIES.install_embedding_models)
        return [row["name"] for row in rows]


def _registered(row: Record) -> RegisteredModel:
    return RegisteredModel(
        EmbeddingModel(row["model_id"], row["name"], row["dimension"]),
        row["provider"],
        row["ready"],
        row["create_time"],
    )
