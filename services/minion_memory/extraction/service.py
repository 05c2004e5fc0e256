"""What callers do with extraction: draw from a session and wait for it, look at the jobs, run one again."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from minion_auth import caller, tenant
from minion_errors import MinionError, NotFound, Unavailable
from minion_postgres import Key, pages

from minion_memory.extraction.domain import (
    MOST_MESSAGES,
    Extracted,
    ExtractionResult,
    Job,
    JobFilters,
    JobPage,
    JobState,
    Policy,
    Session,
    Stretch,
    Touched,
    unchanged,
)
from minion_memory.extraction.drawing import DrawingStore
from minion_memory.extraction.extractors import names
from minion_memory.extraction.peer import Sessions
from minion_memory.extraction.policies import Policies
from minion_memory.extraction.store import JobStore

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
_RETRY_AFTER = timedelta(seconds=5)
# What the results of a reply may weigh, so that a client's 4 MiB hold it.
_REPLY_BYTES = 3 * 1024 * 1024
# What stands beside a memory: why, in a sentence.
_RESULT_BYTES = 256
_GONE = "SESSION_NOT_FOUND"


class Extraction:
    """Extraction for callers, in their tenant; the work itself is the workers'. `wake` tells those of this replica."""

    def __init__(
        self,
        jobs: JobStore,
        drawing: DrawingStore,
        sessions: Sessions,
        policies: Policies,
        *,
        default_extractor: str,
        wake: Callable[[], None],
    ) -> None:
        self._jobs = jobs
        self._drawing = drawing
        self._sessions = sessions
        self._policies = policies
        self._default_extractor = default_extractor
        self._wake = wake

    async def extract(self, stretch: Stretch, key: Key | None) -> Extracted:
        """Draws memories from a stretch of a session, and waits for it as long as the caller does.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`) or extractor (`EXTRACTOR_NOT_FOUND`).
            Unavailable: session service or model are away (`EXTRACTION_UNAVAILABLE`).
        """
        tenant_id = tenant()
        if stretch.extractor:
            _check_extractor(stretch.extractor)
        session = await self._session(stretch.session_id)
        extractor = stretch.extractor or await self._extractor_of(session.agent_id)
        last = min(stretch.last_sequence or session.last_sequence, session.last_sequence)
        if stretch.first_sequence:
            last = min(last, stretch.first_sequence + MOST_MESSAGES - 1)
        wanted = Stretch(stretch.session_id, extractor, stretch.first_sequence, last)
        requested = await self._jobs.request(tenant_id, session, wanted, caller().origin, key)
        self._wake()
        job = await self._ended(tenant_id, requested.job_id, requested.failed_tries)
        touched = job.touched if requested.is_fresh else unchanged(job.touched)
        return Extracted(job, await self._results(tenant_id, touched))

    async def list(self, filters: JobFilters, *, page_size: int, page_token: str) -> tuple[JobPage, str]:
        """Lists jobs, newest first, with the token of the next page (empty on the last).

        Raises:
            InvalidArgument: the token is not of this list (`PAGE_TOKEN_INVALID`).
        """
        bound = {
            "session_id": str(filters.session_id) if filters.session_id else None,
            "state": filters.state.value if filters.state else None,
        }
        after = None
        if page_token:
            create_time, job_id = pages.decode(page_token, bound, (datetime, UUID))
            assert isinstance(create_time, datetime)
            assert isinstance(job_id, UUID)
            after = (create_time, job_id)
        page = await self._jobs.list(tenant(), filters, after, page_size)
        if not page.more:
            return page, ""
        last = page.jobs[-1]
        return page, pages.encode((last.create_time, last.job_id), bound)

    async def retry(self, job_id: UUID, key: Key | None) -> Job:
        """Runs a job that ended again, in the background.

        Raises:
            NotFound: there is none (`EXTRACTION_JOB_NOT_FOUND`).
            FailedPrecondition: it waits or runs (`EXTRACTION_JOB_STATE_FORBIDS`).
        """
        job = await self._jobs.restart(tenant(), job_id, key)
        if job is None:
            raise NotFound(
                "There is no such extraction job.",
                reason="EXTRACTION_JOB_NOT_FOUND",
                metadata={"job_id": str(job_id)},
            )
        self._wake()
        return job

    async def _session(self, session_id: UUID) -> Session:
        try:
            return await self._sessions.get(session_id)
        except NotFound as fault:
            raise _no_session(session_id) from fault
        except Unavailable as fault:
            raise _unavailable("The session service can't be asked now.", fault) from fault

    async def _extractor_of(self, agent_id: UUID) -> str:
        try:
            policy: Policy = await self._policies.of(tenant(), agent_id)
        except MinionError as fault:
            raise _unavailable("The registry can't be asked now which extractor the agent has.", fault) from fault
        extractor = policy.extractor or self._default_extractor
        _check_extractor(extractor)
        return extractor

    async def _ended(self, tenant_id: UUID, job_id: UUID, failed_before: int) -> Job:
        """Waits until a job has ended; until a try of it has failed, too, whose next one comes by itself."""
        pause = _FIRST_PAUSE
        while True:
            job = await self._jobs.get(tenant_id, job_id)
            if job is None:
                # Erased while we waited.
                raise NotFound(
                    "The extraction job is gone.", reason="EXTRACTION_JOB_NOT_FOUND", metadata={"job_id": str(job_id)}
                )
            if job.state is JobState.FAILED and job.error.startswith(_GONE):
                raise _no_session(job.session_id)
            if job.state in {JobState.DONE, JobState.FAILED}:
                return job
            failed = job.attempt_count - (job.state is JobState.RUNNING)
            if job.error and failed > failed_before:
                raise Unavailable(
                    "Nothing could be drawn now; the job is tried again by itself.",
                    reason="EXTRACTION_UNAVAILABLE",
                    metadata={"job_id": str(job_id), "cause": job.error},
                    retry_after=_RETRY_AFTER,
                )
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    async def _results(self, tenant_id: UUID, touched: Sequence[Touched]) -> tuple[ExtractionResult, ...]:
        read = await self._drawing.read(tenant_id, [one.memory_id for one in touched])
        memories = {memory.memory_id: (memory, size) for memory, size in read}
        results: tuple[ExtractionResult, ...] = ()
        filling = 0
        for one in touched:
            if one.memory_id not in memories:
                continue
            memory, size = memories[one.memory_id]
            filling += size + _RESULT_BYTES
            if results and filling > _REPLY_BYTES:
                break
            results += (ExtractionResult(memory, one.outcome, one.reason),)
        return results


def _check_extractor(name: str) -> None:
    if name not in names():
        raise NotFound(f"There is no extractor {name!r}.", reason="EXTRACTOR_NOT_FOUND", metadata={"extractor": name})


def _no_session(session_id: UUID) -> NotFound:
    return NotFound("There is no such session.", reason=_GONE, metadata={"session_id": str(session_id)})


def _unavailable(message: str, fault: MinionError) -> Unavailable:
    return Unavailable(
        message,
        reason="EXTRACTION_UNAVAILABLE",
        metadata={"cause": fault.reason},
        retry_after=getattr(fault, "retry_after", None) or _RETRY_AFTER,
    )
