"""Workers that die, come late, or meet an erasure; models and peers that are away: nothing twice, nothing half."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
import pytest_asyncio
from minion.memory.v1 import memory_service_pb2 as pb
from minion_memory.extraction.domain import MOST_MESSAGES, Job, JobState, Session, Stretch, Trigger
from minion_memory.extraction.drawing import DrawingStore, Lost, Vectors
from minion_memory.extraction.episodes import episodes
from minion_memory.extraction.metrics import ExtractionMetrics
from minion_memory.extraction.store import FeedStore, JobStore, Lease
from minion_memory.extraction.worker import Worker
from minion_postgres import Database
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.provider_script import Fault, FaultKind, Script
from minion_testing.serving import serve
from prometheus_client import CollectorRegistry

from tests.minion_memory.extraction_stage import CREATED, DONE, House, Tenant, house, until
from tests.minion_memory.models_stage import as_app
from tests.minion_memory.test_planning import NOON
from tests.minion_memory.test_proposals import said

NOBODY = "127.0.0.1:1"  # an address where nothing answers
LEASE = timedelta(seconds=30)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def database(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The memory service's own pool, with no service around it."""
    async with as_app(postgres) as opened:
        yield opened


@pytest.fixture
def jobs(database: Database) -> JobStore:
    return JobStore(database)


async def requested(jobs: JobStore, tenant_id: UUID, **fields: object) -> Job:
    """A job that nobody has."""
    session = Session(uuid4(), uuid4(), "ann", 2, 0, True, NOON)
    stretch = Stretch(session.session_id, "episodes-1", 0, 2)
    request = await jobs.request(tenant_id, session, stretch, "key:test", None)
    job = await jobs.get(tenant_id, request.job_id)
    assert job is not None
    return job


async def leased(jobs: JobStore, job: Job, ttl: timedelta = LEASE, attempts: int = 6) -> Lease | None:
    """This job, leased; others that are due are leased along."""
    return next((lease for lease in await jobs.lease(uuid4(), ttl, 100, attempts) if lease.job_id == job.job_id), None)


async def write(database: Database, lease: Lease, job: Job) -> None:
    made = episodes([said(1, "Hello."), said(2, "I like tea.")], job)
    await DrawingStore(database).finish_episodes(lease, job, made, Vectors(None, {}))


async def count(database: Database, tenant_id: UUID) -> int:
    async with database.transaction(tenant_id) as transaction:
        return int(
            await transaction.fetch_value("SELECT count(*) FROM memory.memories WHERE tenant_id = $1", tenant_id)
        )


async def test_a_job_is_one_replica_s_until_its_lease_runs_out(database: Database, jobs: JobStore) -> None:
    tenant_id = uuid4()
    job = await requested(jobs, tenant_id)
    dead = await leased(jobs, job, ttl=timedelta(0))
    assert dead is not None
    other = await leased(jobs, job)
    assert other is not None
    assert (other.epoch, await leased(jobs, job)) == (dead.epoch + 1, None)
    # The one that was taken for dead comes late: it is a ghost and writes nothing, neither memories nor failures.
    with pytest.raises(Lost):
        await write(database, dead, job)
    assert not await jobs.fail(dead, "LATE", final=True, pause=timedelta(0))
    assert await count(database, tenant_id) == 0
    await write(database, other, job)
    assert await count(database, tenant_id) == 2
    with pytest.raises(Lost):
        await write(database, other, job)
    done = await jobs.get(tenant_id, job.job_id)
    assert done is not None
    assert (done.state.value, done.created_count, done.attempt_count) == ("done", 2, 2)


async def test_a_job_whose_subject_was_erased_brings_nothing_back(
    postgres: ClonedDatabase, database: Database, jobs: JobStore
) -> None:
    tenant_id = uuid4()
    job = await requested(jobs, tenant_id)
    lease = await leased(jobs, job)
    assert lease is not None
    await database.fetch("SELECT * FROM memory.erase_subject($1, 'ann', 100)", tenant_id)
    with pytest.raises(Lost):
        await write(database, lease, job)
    async with await postgres.connect("memory", "owner") as owner:
        for table in ("memories", "scope_counts", "extraction_jobs", "watched_sessions"):
            left = await owner.fetch_value(f"SELECT count(*) FROM memory.{table} WHERE tenant_id = $1", tenant_id)  # noqa: S608
            assert left == 0, table


async def test_a_job_that_takes_its_workers_down_is_given_up(jobs: JobStore) -> None:
    tenant_id = uuid4()
    job = await requested(jobs, tenant_id)
    for _ in range(3):
        assert await leased(jobs, job, ttl=timedelta(0), attempts=3) is not None
    assert await leased(jobs, job, attempts=3) is None
    given_up = await jobs.get(tenant_id, job.job_id)
    assert given_up is not None
    assert (given_up.state.value, given_up.error, given_up.attempt_count) == ("failed", "WORKER_LOST", 3)


async def test_a_replica_that_stops_gives_its_jobs_back(jobs: JobStore) -> None:
    tenant_id, replica = uuid4(), uuid4()
    job = await requested(jobs, tenant_id)
    held = [lease for lease in await jobs.lease(replica, LEASE, 100, 6) if lease.job_id == job.job_id]
    assert await jobs.renew(replica, LEASE, held) == {job.job_id}
    await jobs.release(replica)
    assert await jobs.renew(replica, LEASE, held) == set()
    again = await leased(jobs, job)
    assert again is not None
    taken = await jobs.get(tenant_id, job.job_id)
    assert taken is not None
    assert taken.attempt_count == 1


class Lapsing:
    """A job that is leased a second time to the worker that has it, as when that could not renew its lease in time."""

    def __init__(self, job: Job) -> None:
        self.leases = [Lease(uuid4(), job.job_id, epoch) for epoch in (1, 2)]
        self.begun: list[asyncio.Future[object]] = []
        self.renewed: list[Lease] = []
        self._job = replace(job, state=JobState.RUNNING)
        self._left = list(self.leases)

    async def lease(self, *_: object) -> list[Lease]:
        return [self._left.pop(0)] if self._left and len(self.begun) == 2 - len(self._left) else []

    async def get(self, *_: object) -> Job:
        return self._job

    async def messages(self, *_: object) -> object:
        self.begun.append(asyncio.Future())
        return await self.begun[-1]

    async def renew(self, _replica: UUID, _ttl: timedelta, leases: Sequence[Lease]) -> set[UUID]:
        self.renewed += leases
        return {lease.job_id for lease in leases}


async def test_a_job_that_comes_again_to_its_worker_is_under_way_once_and_its_lease_renewed(jobs: JobStore) -> None:
    stage: Any = Lapsing(await requested(jobs, uuid4()))
    worker = Worker(
        *(stage, stage, stage, stage, stage),
        ExtractionMetrics(CollectorRegistry()),
        concurrency=2,
        attempts=6,
        retry_seconds=1,
        lease_seconds=0.03,
    )

    async def both_began() -> bool:
        worker.wake()
        return len(stage.begun) == 2

    async def is_renewed() -> bool:
        return stage.leases[1] in stage.renewed

    running = [asyncio.create_task(worker.run())]
    try:
        await until(both_began)
        assert [one.cancelled() for one in stage.begun] == [True, False]
        running.append(asyncio.create_task(worker.renew()))
        await until(is_renewed)
        assert stage.leases[0] not in stage.renewed
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_two_that_schedule_at_once_hand_nothing_out_twice(database: Database, jobs: JobStore) -> None:
    feed, tenant_id = FeedStore(database), uuid4()
    session = Session(uuid4(), uuid4(), "ann", 2 * MOST_MESSAGES + 5, 0, True, NOON)
    await feed.note(tenant_id, session.session_id)
    made = await asyncio.gather(
        *(feed.schedule(tenant_id, session, "facts-1", Trigger.IDLE, "service:memory") for _ in range(4))
    )
    assert sorted(made) == [0, 0, 0, 3]
    assert await feed.drawn(tenant_id, session.session_id) == {"facts-1": session.last_sequence}
    # One that was erased meanwhile gets no jobs.
    await feed.forget(tenant_id, session.session_id)
    assert await feed.schedule(tenant_id, session, "facts-1", Trigger.IDLE, "service:memory") == 0


async def test_a_fork_begins_where_it_is_its_own(jobs: JobStore) -> None:
    tenant_id = uuid4()
    fork = Session(uuid4(), uuid4(), "ann", 7, 4, True, NOON)
    asked = await jobs.request(tenant_id, fork, Stretch(fork.session_id, "facts-1", 0, 7), "key:test", None)
    job = await jobs.get(tenant_id, asked.job_id)
    assert job is not None
    assert (job.first_sequence, job.last_sequence) == (5, 7)


async def test_a_change_told_during_a_look_is_looked_at_again(database: Database) -> None:
    feed, tenant_id, session_id = FeedStore(database), uuid4(), uuid4()
    await feed.note(tenant_id, session_id)

    async def pick() -> list[object]:
        return [due for due in await feed.pick(100, LEASE) if due.session_id == session_id]

    [due] = await pick()
    assert await pick() == []
    await feed.note(tenant_id, session_id)
    await feed.settle(due, "ann", None)  # type: ignore[arg-type]
    [again] = await pick()
    await feed.settle(again, "ann", None)  # type: ignore[arg-type]
    assert await pick() == []


async def test_old_jobs_are_purged_and_their_stretch_stays_drawn(
    postgres: ClonedDatabase, database: Database, jobs: JobStore
) -> None:
    tenant_id = uuid4()
    job = await requested(jobs, tenant_id)
    lease = await leased(jobs, job)
    assert lease is not None
    await write(database, lease, job)
    assert await jobs.purge(timedelta(days=1)) == 0
    async with await postgres.connect("memory", "owner") as owner:
        await owner.execute("ALTER TABLE memory.extraction_jobs DISABLE TRIGGER USER")
        await owner.execute("UPDATE memory.extraction_jobs SET updated_at = now() - interval '2 days'")
        await owner.execute("ALTER TABLE memory.extraction_jobs ENABLE TRIGGER USER")
    assert await jobs.purge(timedelta(days=1)) >= 1
    assert await jobs.get(tenant_id, job.job_id) is None
    assert await FeedStore(database).drawn(tenant_id, job.session_id) == {"episodes-1": 2}


async def test_what_waits_and_has_failed_is_counted_over_all_tenants(jobs: JobStore) -> None:
    before = await jobs.backlog()
    job = await requested(jobs, uuid4())
    waiting = await jobs.backlog()
    assert waiting.waiting >= 1
    assert waiting.lag_seconds > 0
    lease = await leased(jobs, job)
    assert lease is not None
    assert await jobs.fail(lease, "TEST", final=True, pause=timedelta(0))
    assert (await jobs.backlog()).failed > before.failed


async def test_the_feed_is_one_replica_s(database: Database) -> None:
    feed, one, other = FeedStore(database), uuid4(), uuid4()
    cursor = await feed.hold(one, LEASE)
    assert cursor is not None
    assert await feed.hold(other, LEASE) is None
    assert await feed.advance(one, LEASE, "x")
    assert not await feed.advance(other, LEASE, "y")
    await feed.release(one)
    assert await feed.hold(other, LEASE) == "x"
    assert not await feed.advance(one, LEASE, "z")
    await feed.advance(other, LEASE, "")
    await feed.release(other)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(postgres: ClonedDatabase, model_cache: Path) -> AsyncIterator[House]:
    async with house(
        postgres, model_cache, follow_sessions=False, default_embedding_model="openai/text-embedding-3-small"
    ) as up:
        yield up


@pytest_asyncio.fixture(loop_scope="session")
async def ours(stage: House) -> AsyncIterator[Tenant]:
    async with stage.tenant() as tenant:
        yield tenant


async def test_what_can_t_be_embedded_now_is_kept_and_embedded_later(stage: House, ours: Tenant) -> None:
    stage.provider.push(Script(Fault(FaultKind.SERVER_ERROR), times=None))
    try:
        session_id = await ours.session("My name is Ada.")
        answer = await ours.extract(session_id, extractor="facts-1")
        assert [result.outcome for result in answer.results] == [CREATED]
        assert answer.results[0].memory.embedding_model == ""
        async with await stage.database.connect("memory", "owner") as owner:
            waiting = "SELECT count(*) FROM memory.unembedded_memories WHERE memory_id = $1"
            assert await owner.fetch_value(waiting, UUID(answer.results[0].memory.memory_id)) == 1
    finally:
        # From here on the service may embed it at any moment.
        stage.provider.reset()


async def test_an_erasure_takes_jobs_and_what_they_drew(ours: Tenant) -> None:
    request_id = str(uuid4())
    session_id = await ours.session("My name is Ada.")
    first = await ours.extract(session_id, extractor="facts-1", request_id=request_id)
    receipt = (await ours.memories.EraseSubject(pb.EraseSubjectRequest(user_id="ann"))).receipt
    assert (receipt.memory_count, receipt.extraction_job_count, receipt.stored_reply_count) == (1, 1, 1)
    assert await ours.kept() == []
    assert await ours.jobs(session_id) == []
    # The request is forgotten too: it is another one now.
    again = await ours.extract(session_id, extractor="facts-1", request_id=request_id)
    assert again.job.job_id != first.job.job_id


@pytest.mark.parametrize(("away", "extractor"), [("session_address", "facts-1"), ("registry_address", "")])
async def test_a_peer_that_is_away(stage: House, ours: Tenant, away: str, extractor: str) -> None:
    session_id = await ours.session("My name is Ada.")
    addresses = {
        "gateway_address": stage.memory.settings.gateway_address,  # type: ignore[attr-defined]
        "session_address": stage.session.address,
        "registry_address": stage.registry.address,
        away: NOBODY,
    }
    lonely = serve("memory", stage.database, follow_sessions=False, **addresses)
    async with (
        lonely as alone,
        replace(stage, memory=alone).tenant(ours.tenant_id) as same,
        refused(grpc.StatusCode.UNAVAILABLE, "EXTRACTION_UNAVAILABLE"),
    ):
        await same.extract(session_id, extractor=extractor)
    assert await ours.jobs(session_id) == []


async def test_what_waits_and_fails_is_measured(stage: House, ours: Tenant) -> None:
    session_id = await ours.session("My name is Ada.")
    await ours.extract(session_id, extractor="facts-1")
    memory = stage.memory

    async def counted() -> bool:
        return (memory.metric("extraction_jobs_total", extractor="facts-1", outcome="done") or 0) >= 1

    # A job is counted once its end is written, and a caller may see that end before.
    await until(counted)
    for gauge in ("extraction_jobs_waiting", "extraction_jobs_failed", "extraction_lag_seconds"):
        assert memory.metric(gauge) is not None


async def test_a_session_that_went_fails_its_job(
    stage: House, ours: Tenant, database: Database, jobs: JobStore
) -> None:
    job = await requested(jobs, ours.tenant_id)

    async def failed() -> bool:
        found = await jobs.get(ours.tenant_id, job.job_id)
        return found is not None and found.state is JobState.FAILED

    await until(failed)
    found = await jobs.get(ours.tenant_id, job.job_id)
    assert found is not None
    assert (found.error, found.attempt_count) == ("SESSION_NOT_FOUND", 1)


async def test_a_caller_that_leaves_does_not_stop_the_job(stage: House, ours: Tenant) -> None:
    session_id = await ours.session(*(f"I like thing{number}." for number in range(60)))
    call = ours.memories.ExtractMemories(pb.ExtractMemoriesRequest(session_id=session_id, extractor="facts-1"))

    async def begun() -> bool:
        return bool(await ours.jobs(session_id))

    await until(begun)
    call.cancel()
    [job] = await ours.done(session_id)
    assert (job.state, job.created_count) == (DONE, 60)
