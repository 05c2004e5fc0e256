"""What a job drew, written: the memories and the job's end in one transaction, or nothing at all."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from minion_postgres import Database, Transaction

from minion_memory.embedding_models.domain import EmbeddingModel
from minion_memory.extraction.domain import Drawn, ExtractionOutcome, Job, Touched
from minion_memory.extraction.planning import Planned, Step, plan
from minion_memory.extraction.store import QUERIES, Lease
from minion_memory.memories.domain import Memory, NewMemory
from minion_memory.memories.store import Placed, item_of, memory_of, packed

_BATCH = 100
_OUTCOMES = {
    Step.CREATE: ExtractionOutcome.CREATED,
    Step.REVISE: ExtractionOutcome.UPDATED,
    Step.SUPERSEDE: ExtractionOutcome.CREATED,
    Step.KEEP: ExtractionOutcome.UNCHANGED,
}
_STORED = {
    "created": ExtractionOutcome.CREATED,
    "updated": ExtractionOutcome.UPDATED,
    "unchanged": ExtractionOutcome.UNCHANGED,
}


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors by the content that they were made of, and their model; empty while nothing can be embedded."""

    model: EmbeddingModel | None
    by_content: "Mapping[str, array[float]]"


class Lost(Exception):  # noqa: N818 - named for what happened
    """The job is another worker's by now, or its subject was erased: nothing may be written."""


class DrawingStore:
    """Reads what is known of a user, and writes what was drawn."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def known(self, tenant_id: UUID, job: Job, most: int) -> list[tuple[str, str]]:
        """Gives keys and contents of what is known of the job's user, the latest first."""
        async with self._database.transaction(tenant_id) as transaction:
            rows = await transaction.fetch(QUERIES.known_memories, tenant_id, job.agent_id, job.user_id, most)
        return [(row["key"], row["content"]) for row in rows]

    async def erased_time(self, tenant_id: UUID, user_id: str) -> datetime | None:
        """Says when a user was last erased; None when never."""
        async with self._database.transaction(tenant_id) as transaction:
            found: datetime | None = await transaction.fetch_value(QUERIES.erased_time, tenant_id, user_id)
        return found

    async def read(self, tenant_id: UUID, ids: Sequence[UUID]) -> list[tuple[Memory, int]]:
        """Gives memories by their ids, in this order, with the bytes that each takes at most; none for those gone."""
        async with self._database.transaction(tenant_id) as transaction:
            rows = await transaction.fetch(QUERIES.memories_by_id, tenant_id, list(ids))
        return [(memory_of(row), row["byte_count"]) for row in rows]

    async def finish(self, lease: Lease, job: Job, drawn: Sequence[Drawn], refused: int, vectors: Vectors) -> None:
        """Writes what a model drew and ends the job. Raises Lost, with nothing written, when it is no longer ours."""
        async with self._database.transaction(lease.tenant_id) as transaction:
            await self._lock(transaction, lease, job)
            known = await self._by_key(transaction, lease, job, drawn)
            touched: list[Touched] = []
            for step in plan(drawn, known, job):
                touched += await self._apply(transaction, lease, job, step, vectors)
            await self._complete(transaction, lease, touched, refused)

    async def finish_episodes(self, lease: Lease, job: Job, episodes: Sequence[NewMemory], vectors: Vectors) -> None:
        """Writes episodes and ends the job, in the same way."""
        async with self._database.transaction(lease.tenant_id) as transaction:
            await self._lock(transaction, lease, job)
            touched: list[Touched] = []
            for start in range(0, len(episodes), _BATCH):
                stored = await self._store(transaction, lease, job, episodes[start : start + _BATCH], vectors, "")
                touched += [Touched(memory_id, outcome, "Said in the session.") for memory_id, outcome in stored]
            await self._complete(transaction, lease, touched, 0)

    async def _lock(self, transaction: Transaction, lease: Lease, job: Job) -> None:
        # The scope first, as everybody who writes memories or erases them does.
        await transaction.execute(QUERIES.lock_scope, lease.tenant_id, job.agent_id, job.user_id)
        if await transaction.fetch_value(QUERIES.lock_job, lease.tenant_id, lease.job_id, lease.epoch) is None:
            raise Lost

    async def _by_key(
        self, transaction: Transaction, lease: Lease, job: Job, drawn: Sequence[Drawn]
    ) -> dict[str, Memory]:
        keys = sorted({one.proposal.key for one in drawn})
        rows = await transaction.fetch(QUERIES.memories_by_key, lease.tenant_id, job.agent_id, job.user_id, keys)
        return {row["key"]: memory_of(row) for row in rows}

    async def _apply(
        self, transaction: Transaction, lease: Lease, job: Job, step: Planned, vectors: Vectors
    ) -> list[Touched]:
        touched: list[Touched] = []
        if step.step is Step.SUPERSEDE:
            assert step.stored is not None
            assert step.ended is not None
            await transaction.execute(
                QUERIES.end_drawn,
                lease.tenant_id,
                step.ended,
                step.stored.valid_from,
                step.memory_id,
                step.reason,
                job.principal,
            )
            await transaction.execute(QUERIES.file_away, lease.tenant_id, step.ended)
            touched.append(Touched(step.ended, ExtractionOutcome.DELETED, step.reason))
        reason = f"Drawn by {job.extractor}." if step.step is Step.SUPERSEDE else step.reason
        outcome = _OUTCOMES[step.step]
        if step.stored is not None:
            [(_, stored)] = await self._store(transaction, lease, job, [step.stored], vectors, reason)
            # What was ended long ago and is said again is stored in its place.
            outcome = stored if outcome is not ExtractionOutcome.CREATED else outcome
        return [*touched, Touched(step.memory_id, outcome, reason)]

    async def _store(
        self,
        transaction: Transaction,
        lease: Lease,
        job: Job,
        memories: Sequence[NewMemory],
        vectors: Vectors,
        reason: str,
    ) -> list[tuple[UUID, ExtractionOutcome]]:
        made = [vectors.by_content.get(memory.content) for memory in memories]
        placed = [
            Placed(memory, None if vector is None else vectors.model, vector, given=False)
            for memory, vector in zip(memories, made, strict=True)
        ]
        results = await transaction.fetch_value(
            QUERIES.store_drawn,
            lease.tenant_id,
            [item_of(each) for each in placed],
            [None if vector is None else packed(vector) for vector in made],
            reason,
            job.principal,
        )
        return [(UUID(result["memory_id"]), _STORED[result["outcome"]]) for result in results]

    async def _complete(self, transaction: Transaction, lease: Lease, touched: Sequence[Touched], refused: int) -> None:
        counts = [sum(1 for one in touched if one.outcome is outcome) for outcome in ExtractionOutcome]
        await transaction.execute(
            QUERIES.complete_job,
            lease.tenant_id,
            lease.job_id,
            *counts,
            refused,
            [{"memory_id": str(one.memory_id), "outcome": one.outcome.value, "reason": one.reason} for one in touched],
        )
