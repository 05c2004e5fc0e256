"""Jobs in Postgres: one a session, asked for with a run's end, leased, fenced, and gone when they are over."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from minion_gateway.agents.domain import SummaryPolicy
from minion_gateway.runs.changes import AttemptBegin, AttemptEnd, AttemptState, Change, Charge, Ending
from minion_gateway.runs.domain import RunState, Step, StepKind, StepState, TokenUsage
from minion_gateway.runs.happenings import Ended
from minion_gateway.runs.store import RunStore
from minion_gateway.summaries.domain import Job, SummaryResult
from minion_gateway.summaries.store import SummaryChange, SummaryStore
from minion_postgres import Database, queries
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid4

from tests.minion_gateway.runs.dead import accepted, agent, dying, submission
from tests.minion_gateway.runs.stage import rows, until

_QUERIES = queries.load("minion_gateway.summaries")
RESULT = SummaryResult("So far.", 1, 6, False, "stop", "openai/gpt-4o-mini", TokenUsage(100, 5), 700)
ATTEMPT = AttemptBegin(3, 1, "openai/gpt-4o-mini", 9_000, 400, 64)
LONG_LEASE = timedelta(seconds=60)


def new_id() -> UUID:
    return UUID(int=uuid4().int)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def app(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    async with await postgres.connect("gateway") as database:
        yield database


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owner(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    async with await postgres.connect("gateway", "owner") as database:
        yield database


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def runs(postgres: ClonedDatabase) -> AsyncIterator[RunStore]:
    async with dying(postgres, lease_seconds=60) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def empty(owner: Database) -> None:
    """No job of another test is picked."""
    await owner.execute("DELETE FROM gateway.summary_jobs")


@pytest.fixture
def tenant_id() -> UUID:
    return new_id()


@pytest.fixture
def session_id() -> UUID:
    return new_id()


def replica(app: Database, lease: timedelta = LONG_LEASE) -> SummaryStore:
    return SummaryStore(app, replica=new_id(), lease=lease)


async def ended(runs: RunStore, tenant_id: UUID, session_id: UUID) -> UUID:
    """A run that ended and asks for a summary by its third step."""
    who = agent(summary=SummaryPolicy(trigger_tokens=256, target_tokens=64, keep_messages=0))
    _, run = await accepted(runs, submission(tenant_id, str(session_id), who))
    change = Change(
        totals=run.totals,
        principal="key:dead",
        begun=(Step(3, StepKind.SUMMARY),),
        events=run.numbered(Ended()),
    )
    assert await runs.end(run.fence(1), change, Ending(RunState.COMPLETED, "Done."), takes_next=False) is not None
    return run.run_id


async def taken(store: SummaryStore, tenant_id: UUID, session_id: UUID) -> Job:
    assert await store.lease(10) == [(tenant_id, session_id)]
    job = await store.load(tenant_id, session_id)
    assert job is not None
    return job


async def step(owner: Database, run_id: UUID, sequence: int = 3) -> dict[str, object]:
    (found,) = await rows(
        owner,
        "SELECT state, attempt, result IS NOT NULL AS told FROM gateway.run_steps WHERE run_id = $1 AND sequence = $2",
        run_id,
        sequence,
    )
    return found


async def test_a_run_that_asks_leaves_a_job(
    app: Database, owner: Database, runs: RunStore, tenant_id: UUID, session_id: UUID
) -> None:
    run_id = await ended(runs, tenant_id, session_id)
    job = await taken(replica(app), tenant_id, session_id)
    assert (job.run_id, job.step, job.epoch, job.recovery_count) == (run_id, 3, 1, 0)
    assert (job.attempt, job.asked, job.result) == (1, False, None)
    assert (job.policy.target_tokens, job.model, job.principal) == (64, "openai/gpt-4o-mini", "key:dead")
    assert await step(owner, run_id) == {"state": "STARTED", "attempt": 1, "told": False}
    # Nobody else gets it while it is worked on.
    assert await replica(app).lease(10) == []


async def test_a_second_run_of_the_session_does_not_ask_again(
    app: Database, owner: Database, runs: RunStore, tenant_id: UUID, session_id: UUID
) -> None:
    first = await ended(runs, tenant_id, session_id)
    second = await ended(runs, tenant_id, session_id)
    assert (await step(owner, first))["state"] == "STARTED"
    assert (await step(owner, second))["state"] == "SKIPPED"
    assert (await taken(replica(app), tenant_id, session_id)).run_id == first


async def test_a_job_goes_from_question_to_answer_to_its_end(
    app: Database, owner: Database, runs: RunStore, tenant_id: UUID, session_id: UUID
) -> None:
    run_id = await ended(runs, tenant_id, session_id)
    store = replica(app)
    job = await taken(store, tenant_id, session_id)
    assert await store.advance(job, SummaryChange(StepState.STARTED, attempts_begun=(ATTEMPT,)))
    again = await store.load(tenant_id, session_id)
    assert again is not None
    assert again.asked
    done = AttemptEnd(3, 1, AttemptState.DONE, 700)
    charge = Charge(3, "llm", "openai/gpt-4o-mini", TokenUsage(100, 5), 700)
    answered = SummaryChange(StepState.STARTED, RESULT, attempts_ended=(done,), charges=(charge,))
    assert await store.advance(job, answered)
    again = await store.load(tenant_id, session_id)
    assert again is not None
    assert (again.asked, again.result) == (False, RESULT)
    assert await store.advance(job, SummaryChange(StepState.DONE, RESULT, is_over=True))
    assert await store.load(tenant_id, session_id) is None
    assert await step(owner, run_id) == {"state": "DONE", "attempt": 1, "told": True}
    assert len(await rows(owner, "SELECT 1 FROM gateway.ledger WHERE run_id = $1", run_id)) == 1
    # The session may ask again.
    assert (await step(owner, await ended(runs, tenant_id, session_id)))["state"] == "STARTED"


async def test_a_job_that_goes_on_does_so_with_a_step_of_its_own(
    app: Database, owner: Database, runs: RunStore, tenant_id: UUID, session_id: UUID
) -> None:
    run_id = await ended(runs, tenant_id, session_id)
    store = replica(app)
    job = await taken(store, tenant_id, session_id)
    assert await store.advance(job, SummaryChange(StepState.DONE, RESULT, goes_on=True))
    following = await store.load(tenant_id, session_id)
    assert following == job.next_step()
    assert await step(owner, run_id, 4) == {"state": "STARTED", "attempt": 1, "told": False}
    assert await store.advance(following, SummaryChange(StepState.SKIPPED, is_over=True))
    assert (await step(owner, run_id, 4))["state"] == "SKIPPED"


async def test_a_ghost_writes_nothing(
    app: Database, owner: Database, runs: RunStore, tenant_id: UUID, session_id: UUID
) -> None:
    run_id = await ended(runs, tenant_id, session_id)
    ghost = replica(app, timedelta(milliseconds=1))
    old = await taken(ghost, tenant_id, session_id)
    heir = replica(app)

    async def taken_over() -> bool:
        return bool(await heir.lease(10))

    await until(taken_over)
    job = await heir.load(tenant_id, session_id)
    assert job is not None
    assert (job.epoch, job.recovery_count) == (2, 1)
    assert not await ghost.advance(old, SummaryChange(StepState.FAILED, is_over=True))
    await ghost.defer(old, timedelta(0))
    assert await ghost.renew([old]) == set()
    assert await ghost.load(tenant_id, session_id) is None
    assert await heir.renew([job]) == {(tenant_id, session_id)}
    assert await step(owner, run_id) == {"state": "STARTED", "attempt": 1, "told": False}


async def test_what_is_put_off_or_given_back_is_no_recovery(
    app: Database, runs: RunStore, tenant_id: UUID, session_id: UUID
) -> None:
    await ended(runs, tenant_id, session_id)
    store = replica(app)
    job = await taken(store, tenant_id, session_id)
    await store.defer(job, timedelta(hours=1))
    assert await store.lease(10) == []
    await store.defer(job, timedelta(0))
    job = await taken(store, tenant_id, session_id)
    assert (job.epoch, job.recovery_count, job.deferral_count) == (2, 0, 2)
    assert await store.release() == 1
    job = await taken(replica(app), tenant_id, session_id)
    assert (job.epoch, job.recovery_count) == (3, 0)


async def test_a_tenant_sees_its_own_jobs_alone(
    app: Database, runs: RunStore, tenant_id: UUID, session_id: UUID
) -> None:
    await ended(runs, tenant_id, session_id)
    count = "SELECT count(*) FROM gateway.summary_jobs"
    assert await app.fetch_value(count) == 0
    async with app.transaction(new_id()) as transaction:
        assert await transaction.fetch_value(count) == 0
    async with app.transaction(tenant_id) as transaction:
        assert await transaction.fetch_value(count) == 1
    store = replica(app)
    job = await taken(store, tenant_id, session_id)
    assert await store.load(new_id(), session_id) is None
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with app.transaction(tenant_id) as transaction:
            await transaction.execute("TRUNCATE gateway.summary_jobs")
    assert await store.advance(job, SummaryChange(StepState.SKIPPED, is_over=True))


async def test_work_across_tenants_returns_ids_alone(app: Database, tenant_id: UUID, session_id: UUID) -> None:
    for query, arguments in (
        (_QUERIES.lease_summaries, (new_id(), LONG_LEASE, 1)),
        (_QUERIES.renew_summaries, (new_id(), LONG_LEASE, [tenant_id], [session_id], [1])),
    ):
        names = re.search(r"SELECT (.*) FROM", query)
        assert names is not None
        assert set(names[1].split(", ")) <= {"tenant_id", "session_id"}
        await app.fetch(query, *arguments)


async def test_the_picker_looks_at_what_is_due_alone(owner: Database) -> None:
    async with owner.transaction(None) as transaction:
        await transaction.execute("SET LOCAL enable_seqscan = off")
        found = await transaction.fetch("EXPLAIN SELECT 1 FROM gateway.summary_jobs WHERE lease_until <= now()")
    assert "summary_jobs_due" in "\n".join(row[0] for row in found)
