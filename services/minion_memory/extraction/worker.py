"""The workers of a replica: they lease jobs, draw, and write what was drawn with the job's end.

A job is one replica's while its lease lasts, by the database's clock. Whatever happens before the last transaction has
left nothing behind; whoever comes late to it finds another epoch and writes nothing.
"""

import asyncio
import random
from array import array
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from uuid import UUID, uuid4

import structlog
from minion_auth import CallerKind, Identity, acting_as
from minion_errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, MinionError, NotFound, Unavailable
from minion_telemetry import bound_fields

from minion_memory.embedding_models.domain import Chosen, EmbeddingModel
from minion_memory.embedding_models.service import EmbeddingModels
from minion_memory.extraction.domain import EPISODES, Drawn, Job, JobState, Proposal, SourceMessage
from minion_memory.extraction.drawing import DrawingStore, Lost, Vectors
from minion_memory.extraction.episodes import episodes
from minion_memory.extraction.extractors import parts, prompted, question
from minion_memory.extraction.metrics import ExtractionMetrics
from minion_memory.extraction.peer import Models, Sessions
from minion_memory.extraction.proposals import AnswerUnreadable, check, read
from minion_memory.extraction.store import JobStore, Lease
from minion_memory.memories.peer import Gateway

_KNOWN_SHOWN = 200
_TEXTS_A_CALL = 64
_BYTES_A_CALL = 512 * 1024
_MOST_EMBEDDED = 32_768
_POLL_SECONDS = 1.0
_LONGEST_PAUSE = 600.0
_GAUGE_SECONDS = 10.0
_PURGE_SECONDS = 3_600.0
_log = structlog.get_logger()


def acting_for(tenant_id: UUID) -> Identity:
    """The identity by which this service works for a tenant when nobody calls."""
    return Identity(kind=CallerKind.SERVICE, tenant_id=tenant_id, principal="service:memory", service="memory")


class Embedding:
    """Makes vectors for what is about to be written; without them it is embedded later."""

    def __init__(self, gateway: Gateway, models: EmbeddingModels) -> None:
        self._gateway = gateway
        self._models = models

    async def write(
        self, tenant_id: UUID, contents: Sequence[str], written: Callable[[Vectors], Awaitable[None]]
    ) -> None:
        """Has contents written with their vectors; again, when the tenant's memories were moved to another model."""

        async def work(chosen: Chosen) -> None:
            await written(await self._of(contents, await self._models.named(chosen.name)))

        await self._models.settled(tenant_id, work)

    async def _of(self, contents: Sequence[str], model: EmbeddingModel) -> Vectors:
        """Gives vectors by content, as far as they can be made now."""
        made: dict[str, array[float]] = {}
        for batch in _batches(list(dict.fromkeys(contents))):
            try:
                vectors = await self._gateway.embed(batch, model=model.name, dimension=model.dimension)
            except (Unavailable, InvalidArgument, DeadlineExceeded) as fault:
                _log.info("memories are embedded later", count=len(batch), reason=fault.reason)
                break
            made.update(zip(batch, vectors, strict=True))
        return Vectors(model, made)


class Worker:
    """Draws, on one replica."""

    def __init__(
        self,
        jobs: JobStore,
        drawing: DrawingStore,
        sessions: Sessions,
        models: Models,
        embedding: Embedding,
        metrics: ExtractionMetrics,
        *,
        concurrency: int,
        attempts: int,
        retry_seconds: float,
        lease_seconds: float,
    ) -> None:
        self.replica = uuid4()
        self._jobs = jobs
        self._drawing = drawing
        self._sessions = sessions
        self._models = models
        self._embedding = embedding
        self._metrics = metrics
        self._concurrency = concurrency
        self._attempts = attempts
        self._retry_seconds = retry_seconds
        self._lease = timedelta(seconds=lease_seconds)
        self._held: dict[UUID, tuple[Lease, asyncio.Task[None]]] = {}
        self._woken = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        """Says that there is a job to look for."""
        self._woken.set()

    async def run(self) -> None:
        """Leases jobs and draws, for ever."""
        try:
            while True:
                self._woken.clear()
                room = 0 if self._stopping else self._concurrency - len(self._held)
                leased: Sequence[Lease] = ()
                if room > 0:
                    try:
                        leased = await self._jobs.lease(self.replica, self._lease, room, self._attempts)
                    except MinionError as fault:
                        _log.warning("no extraction jobs could be leased", reason=fault.reason, error=fault.message)
                for lease in leased:
                    if (lapsed := self._held.get(lease.job_id)) is not None:
                        # Its lease ran out while it was under way here: what it draws would be written by nobody.
                        lapsed[1].cancel()
                    task = asyncio.create_task(self._try(lease), name=f"extraction:{lease.job_id}")
                    task.add_done_callback(_report)
                    self._held[lease.job_id] = (lease, task)
                with suppress(TimeoutError):
                    # Replicas in step would leave all the work to the one that is a moment ahead.
                    pause = _POLL_SECONDS * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
                    async with asyncio.timeout(pause):
                        await self._woken.wait()
        finally:
            await self._stop()

    async def renew(self) -> None:
        """Renews leases at thirds of their time, for ever; a job that was lost is let go."""
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            held = [lease for lease, _ in self._held.values()]
            if not held:
                continue
            try:
                kept = await self._jobs.renew(self.replica, self._lease, held)
            except MinionError as fault:
                _log.warning("extraction leases could not be renewed", reason=fault.reason, error=fault.message)
                continue
            for lease in held:
                mine = self._held.get(lease.job_id)
                if lease.job_id not in kept and mine is not None and mine[0] == lease:
                    mine[1].cancel()

    async def measure(self) -> None:
        """Keeps the gauges, for ever."""
        while True:
            try:
                backlog = await self._jobs.backlog()
                self._metrics.waiting.set(backlog.waiting)
                self._metrics.failed.set(backlog.failed)
                self._metrics.lag.set(backlog.lag_seconds)
            except MinionError as fault:
                _log.warning("the extraction backlog can't be read", reason=fault.reason, error=fault.message)
            await asyncio.sleep(_GAUGE_SECONDS)

    async def purge(self, age: timedelta) -> None:
        """Deletes jobs that ended longer ago than an age, every hour."""
        while True:
            await self._jobs.purge(age)
            await asyncio.sleep(_PURGE_SECONDS)

    async def release(self) -> None:
        """Gives the jobs back, when the replica stops."""
        self._stopping = True
        await self._stop()
        await self._jobs.release(self.replica)

    async def _stop(self) -> None:
        tasks = [task for _, task in self._held.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _try(self, lease: Lease) -> None:
        extractor = ""
        try:
            with acting_as(acting_for(lease.tenant_id)), _logging(lease):
                job = await self._jobs.get(lease.tenant_id, lease.job_id)
                if job is None or job.state is not JobState.RUNNING:
                    return
                extractor = job.extractor
                await self._draw(lease, job)
                self._metrics.ended(extractor, "done")
        except Lost:
            _log.info("an extraction job went to another, or was erased", job_id=str(lease.job_id))
        except (MinionError, AnswerUnreadable) as fault:
            await self._failed(lease, extractor, fault)
        finally:
            # By now another try of it may be under way here, by another lease.
            if self._held.get(lease.job_id, (None, None))[0] == lease:
                del self._held[lease.job_id]
            self._woken.set()

    async def _draw(self, lease: Lease, job: Job) -> None:
        messages = await self._sessions.messages(job.session_id, job.first_sequence, job.last_sequence)
        erased = await self._drawing.erased_time(lease.tenant_id, job.user_id)
        if erased is not None:
            # The session service may still keep what was said before; here it is gone for good.
            messages = [message for message in messages if message.create_time > erased]
        if job.extractor == EPISODES:
            made = episodes(messages, job)
            contents = [memory.content for memory in made]
            await self._embedding.write(
                lease.tenant_id, contents, lambda vectors: self._drawing.finish_episodes(lease, job, made, vectors)
            )
            return
        drawn, refused = await self._ask(lease, job, messages)
        self._metrics.refused(job.extractor, refused)
        contents = [one.proposal.content for one in drawn]
        await self._embedding.write(
            lease.tenant_id, contents, lambda vectors: self._drawing.finish(lease, job, drawn, refused, vectors)
        )

    async def _ask(self, lease: Lease, job: Job, messages: Sequence[SourceMessage]) -> tuple[list[Drawn], int]:
        """Asks the model, some messages at a time; each question knows what the ones before brought."""
        extractor = prompted(job.extractor)
        if extractor is None:
            raise NotFound("There is no such extractor.", reason="EXTRACTOR_NOT_FOUND")
        by_sequence = {message.sequence: message for message in messages}
        known = dict(reversed(await self._drawing.known(lease.tenant_id, job, _KNOWN_SHOWN)))
        drawn: list[Drawn] = []
        refused = 0
        for part in parts(messages):
            if not any(message.text.strip() for message in part):
                continue
            answer = await self._models.answer(extractor.instructions, question(part, known.items()), extractor.schema)
            proposals, malformed = read(answer)
            accepted = [one for one in _checked(proposals, part, by_sequence) if one is not None]
            refused += malformed + len(proposals) - len(accepted)
            drawn += accepted
            known.update({one.proposal.key: one.proposal.content for one in accepted})
        return drawn, refused

    async def _failed(self, lease: Lease, extractor: str, fault: MinionError | AnswerUnreadable) -> None:
        error = "ANSWER_UNREADABLE" if isinstance(fault, AnswerUnreadable) else fault.reason
        if isinstance(fault, MinionError) and fault.metadata.get("cause"):
            error = f"{error} ({fault.metadata['cause']})"
        try:
            job = await self._jobs.get(lease.tenant_id, lease.job_id)
            tries = job.attempt_count if job else 0
            # What is wrong with the request itself stays wrong.
            final = tries >= self._attempts or isinstance(fault, NotFound | InvalidArgument)
            pause = min(self._retry_seconds * 2 ** max(tries - 1, 0), _LONGEST_PAUSE) * random.uniform(0.8, 1.2)  # noqa: S311
            asked_for = getattr(fault, "retry_after", None)
            pause = max(pause, min(asked_for.total_seconds(), _LONGEST_PAUSE)) if asked_for else pause
            ours = await self._jobs.fail(lease, error[:200], final=final, pause=timedelta(seconds=pause))
        except MinionError as lost:
            # The lease runs out, and the job is found again.
            _log.warning("an extraction job's failure could not be written", reason=lost.reason, error=lost.message)
            return
        if ours:
            self._metrics.ended(extractor, "failed" if final else "tried")
            level = _log.error if final or isinstance(fault, FailedPrecondition) else _log.warning
            level("an extraction job failed", job_id=str(lease.job_id), reason=error, attempt=tries, final=final)


def _report(task: asyncio.Task[None]) -> None:
    """Logs what no try expects: the job comes again once its lease has run out, and is given up in the end."""
    if not task.cancelled() and (fault := task.exception()) is not None:
        _log.error("an extraction job failed inside", task=task.get_name(), exc_info=fault)


def _checked(
    proposals: Sequence[Proposal], part: Sequence[SourceMessage], by_sequence: dict[int, SourceMessage]
) -> Iterator[Drawn | None]:
    # Only what was shown may be named.
    shown = {message.sequence: by_sequence[message.sequence] for message in part}
    for proposal in proposals:
        yield check(proposal, shown)


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    filling = 0
    for text in texts:
        size = len(text.encode())
        if batch and (len(batch) == _TEXTS_A_CALL or filling + size > _BYTES_A_CALL):
            yield batch
            batch, filling = [], 0
        batch.append(text[:_MOST_EMBEDDED])
        filling += size
    if batch:
        yield batch


def _logging(lease: Lease) -> AbstractContextManager[None]:
    return bound_fields(tenant_id=str(lease.tenant_id), job_id=str(lease.job_id))
