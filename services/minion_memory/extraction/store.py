"""Jobs and followed sessions in Postgres."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from minion_errors import FailedPrecondition
from minion_postgres import Database, Key, Record, queries
from minion_postgres.idempotency import Idempotent
from uuid_utils.compat import uuid7

from minion_memory.extraction.domain import (
    MOST_MESSAGES,
    ExtractionOutcome,
    Job,
    JobFilters,
    JobPage,
    JobState,
    Session,
    Stretch,
    Touched,
    Trigger,
)

QUERIES = queries.load(__package__)
_RESTARTED = Idempotent(Job, schema="memory")
# Jobs that one look makes of one session; what is left is found by the next.
MOST_JOBS = 20
_PURGED_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Lease:
    """A job that this replica has; the epoch is its fence."""

    tenant_id: UUID
    job_id: UUID
    epoch: int


@dataclass(frozen=True, slots=True)
class Due:
    """A session that is to be looked at; `picked_at` is the database's time."""

    tenant_id: UUID
    session_id: UUID
    version: int
    picked_at: datetime


@dataclass(frozen=True, slots=True)
class Requested:
    """The job of a request, and how often it has failed so far.

    `is_fresh` says that what it comes to is this request's doing.
    """

    job_id: UUID
    is_fresh: bool
    failed_tries: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """Jobs that wait and that failed, of all tenants, and how long the oldest that is due has waited, in seconds."""

    waiting: int
    failed: int
    lag_seconds: float


class FeedStore:
    """How far the session service's feed was read, and the sessions that it told of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def hold(self, replica: UUID, ttl: timedelta) -> str | None:
        """Takes or keeps the feed; gives its cursor, None while another replica reads."""
        cursor: str | None = await self._database.fetch_value(QUERIES.hold_session_feed, replica, ttl)
        return cursor

    async def advance(self, replica: UUID, ttl: timedelta, cursor: str) -> bool:
        """Moves the cursor on; False when another replica reads by now."""
        return bool(await self._database.fetch_value(QUERIES.advance_session_feed, replica, ttl, cursor))

    async def release(self, replica: UUID) -> None:
        """Gives the feed back."""
        await self._database.execute(QUERIES.release_session_feed, replica)

    async def note(self, tenant_id: UUID, session_id: UUID) -> None:
        """Notes that a session changed: it is due now."""
        await self._database.execute(QUERIES.note_session, tenant_id, session_id)

    async def forget(self, tenant_id: UUID, session_id: UUID) -> None:
        """Forgets a session that is gone."""
        await self._database.execute(QUERIES.forget_session, tenant_id, session_id)

    async def tenants(self) -> list[UUID]:
        """Gives the tenants whose sessions are followed."""
        return [row["tenant_id"] for row in await self._database.fetch(QUERIES.watching_tenants)]

    async def pick(self, most: int, hold: timedelta) -> list[Due]:
        """Takes sessions that are due, of any tenant."""
        rows = await self._database.fetch(QUERIES.pick_watched_sessions, most, hold)
        return [Due(row["tenant_id"], row["session_id"], row["version"], row["picked_at"]) for row in rows]

    async def drawn(self, tenant_id: UUID, session_id: UUID) -> dict[str, int]:
        """Says how far each extractor has come in a session."""
        async with self._database.transaction(tenant_id) as transaction:
            found: dict[str, int] | None = await transaction.fetch_value(QUERIES.drawn_sequences, tenant_id, session_id)
        return found or {}

    async def schedule(
        self, tenant_id: UUID, session: Session, extractor: str, trigger: Trigger, principal: str
    ) -> int:
        """Makes jobs of what an extractor hasn't seen of a session; says how many."""
        made: int = await self._database.fetch_value(
            QUERIES.schedule_extraction,
            tenant_id,
            session.session_id,
            session.agent_id,
            session.user_id,
            extractor,
            trigger.value,
            principal,
            session.fork_sequence,
            session.last_sequence,
            MOST_MESSAGES,
            [uuid7() for _ in range(MOST_JOBS)],
        )
        return made

    async def settle(self, due: Due, user_id: str | None, next_time: datetime | None) -> None:
        """Ends a look at a session: it is due again then, never where that is None."""
        await self._database.execute(
            QUERIES.settle_session, due.tenant_id, due.session_id, due.version, user_id, next_time
        )


class JobStore:
    """The jobs, for callers and for their workers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def request(
        self, tenant_id: UUID, session: Session, stretch: Stretch, principal: str, key: Key | None
    ) -> Requested:
        """Asks for a stretch of a session."""
        row = await self._database.fetch_one(
            QUERIES.request_extraction,
            tenant_id,
            key.request_id if key else None,
            key.digest if key else None,
            uuid7(),
            session.session_id,
            session.agent_id,
            session.user_id,
            stretch.extractor,
            principal,
            stretch.first_sequence,
            stretch.last_sequence,
            session.fork_sequence,
            MOST_MESSAGES,
        )
        assert row is not None
        return Requested(row["job_id"], row["fresh"], row["failed_tries"] or 0)

    async def get(self, tenant_id: UUID, job_id: UUID) -> Job | None:
        """Reads a job."""
        row = await self._database.fetch_one(QUERIES.get_extraction_job, tenant_id, job_id)
        return None if row is None else _job(row)

    async def list(
        self, tenant_id: UUID, filters: JobFilters, after: tuple[datetime, UUID] | None, limit: int
    ) -> JobPage:
        """Reads a page of jobs, newest first."""
        rows = await self._database.fetch(
            QUERIES.list_extraction_jobs,
            tenant_id,
            filters.session_id,
            filters.state.value if filters.state else None,
            *(after or (None, None)),
            limit + 1,
        )
        return JobPage(tuple(_job(row) for row in rows[:limit]), more=len(rows) > limit)

    async def restart(self, tenant_id: UUID, job_id: UUID, key: Key | None) -> Job | None:
        """Puts a job that ended back to its beginning; None when there is none.

        Raises FailedPrecondition (EXTRACTION_JOB_STATE_FORBIDS) for one that waits or runs.
        """
        async with self._database.transaction(tenant_id) as transaction:
            row = await transaction.fetch_one(QUERIES.lock_job_to_restart, tenant_id, job_id)
            if row is None:
                return None
            known = _job(row)

            async def write() -> Job:
                if known.state not in {JobState.DONE, JobState.FAILED}:
                    state = known.state.value.upper()
                    raise FailedPrecondition(
                        f"The job is {state}: only one that ended can be run again.",
                        reason="EXTRACTION_JOB_STATE_FORBIDS",
                        metadata={"job_id": str(job_id), "state": state},
                    )
                await transaction.execute(QUERIES.restart_job, tenant_id, job_id)
                restarted = await transaction.fetch_one(QUERIES.lock_job_to_restart, tenant_id, job_id)
                assert restarted is not None
                return _job(restarted)

            # What is kept of the request names the user, so that erasure finds it.
            kept = None if key is None else replace(key, subject=known.user_id)
            return await _RESTARTED.once(transaction, kept, write)

    async def lease(self, replica: UUID, ttl: timedelta, most: int, attempts: int) -> Sequence[Lease]:
        """Leases jobs that are due, of any tenant."""
        rows = await self._database.fetch(QUERIES.lease_extraction_jobs, replica, ttl, most, attempts)
        return [Lease(row["tenant_id"], row["job_id"], row["epoch"]) for row in rows]

    async def renew(self, replica: UUID, ttl: timedelta, leases: Sequence[Lease]) -> set[UUID]:
        """Renews leases; gives the jobs that are still held."""
        rows = await self._database.fetch(
            QUERIES.renew_extraction_jobs,
            replica,
            ttl,
            [lease.tenant_id for lease in leases],
            [lease.job_id for lease in leases],
            [lease.epoch for lease in leases],
        )
        return {row["job_id"] for row in rows}

    async def release(self, replica: UUID) -> None:
        """Gives this replica's jobs back."""
        await self._database.execute(QUERIES.release_extraction_jobs, replica)

    async def fail(self, lease: Lease, error: str, *, final: bool, pause: timedelta) -> bool:
        """Ends a try that failed; False to a ghost."""
        return bool(
            await self._database.fetch_value(
                QUERIES.fail_extraction_job, lease.tenant_id, lease.job_id, lease.epoch, error, final, pause
            )
        )

    async def backlog(self) -> Backlog:
        """Says what waits and has failed, of all tenants."""
        row = await self._database.fetch_one(QUERIES.extraction_backlog)
        assert row is not None
        return Backlog(row["waiting"], row["failed"], float(row["lag"]))

    async def purge(self, age: timedelta) -> int:
        """Deletes jobs that ended longer ago; says how many."""
        total = 0
        while True:
            gone = int(await self._database.fetch_value(QUERIES.purge_extraction_jobs, age, _PURGED_AT_ONCE))
            total += gone
            if gone < _PURGED_AT_ONCE:
                return total


def _job(row: Record) -> Job:
    return Job(
        job_id=row["job_id"],
        session_id=row["session_id"],
        agent_id=row["agent_id"],
        user_id=row["user_id"],
        extractor=row["extractor"],
        trigger=Trigger(row["trigger"]),
        principal=row["principal"],
        state=JobState(row["state"]),
        first_sequence=row["first_sequence"],
        last_sequence=row["last_sequence"],
        attempt_count=row["attempt_count"],
        error=row["error"],
        created_count=row["created_count"],
        updated_count=row["updated_count"],
        deleted_count=row["deleted_count"],
        unchanged_count=row["unchanged_count"],
        refused_count=row["refused_count"],
        touched=tuple(
            Touched(UUID(one["memory_id"]), ExtractionOutcome(one["outcome"]), one["reason"]) for one in row["touched"]
        ),
        create_time=row["create_time"],
        update_time=row["updated_at"],
    )
