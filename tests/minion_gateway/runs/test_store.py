"""The engine's transactions, one by one: what is accepted, what is fenced, what is handed on."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
import pytest_asyncio
from minion_gateway.runs.changes import Change, Ending
from minion_gateway.runs.domain import RunError, RunState, Step, StepKind, StepState, TokenUsage
from minion_gateway.runs.happenings import Ended, StateChanged, TextAdded
from minion_gateway.runs.store import Batch, Outcome, RunFilter, RunStore, Submission, WaitingRuns
from minion_postgres import Database
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid4

from tests.minion_gateway.runs.dead import DeadRun, accepted, agent, asks_for, died, dying, submission
from tests.minion_gateway.runs.stage import rows, until

WHO = agent()


def new_id() -> UUID:
    return UUID(int=uuid4().int)


def _id(wanted: Submission) -> UUID:
    return wanted.run_id


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def store(postgres: ClonedDatabase) -> AsyncIterator[RunStore]:
    async with dying(postgres, lease_seconds=60) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owner(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    async with await postgres.connect("gateway", "owner") as database:
        yield database


@pytest.fixture
def tenant_id() -> UUID:
    return new_id()


@pytest.fixture
def session_id() -> str:
    return str(new_id())


@pytest_asyncio.fixture(loop_scope="session")
async def run(store: RunStore, tenant_id: UUID, session_id: str) -> DeadRun:
    return (await accepted(store, submission(tenant_id, session_id, WHO)))[1]


async def test_an_accepted_run_is_at_work_with_its_first_intents(
    store: RunStore, owner: Database, tenant_id: UUID, session_id: str
) -> None:
    acceptance, run = await accepted(store, submission(tenant_id, session_id, WHO))

    assert acceptance.outcome is Outcome.WORKING
    found = await store.get(tenant_id, run.run_id)
    assert found is not None
    assert (found.state, found.create_time, found.last_event_sequence) == (RunState.WORKING, acceptance.time, 1)
    steps = await rows(owner, "SELECT sequence, kind, state, key FROM gateway.run_steps WHERE run_id = $1", run.run_id)
    assert [(step["kind"], step["state"]) for step in steps] == [("begin", "STARTED"), ("llm", "STARTED")]
    assert [step["key"] for step in steps] == [Step(n, StepKind.LLM).key(run.run_id) for n in (1, 2)]
    attempts = await rows(owner, "SELECT state, worst_case_nanos FROM gateway.attempts WHERE run_id = $1", run.run_id)
    assert attempts == [{"state": "STARTED", "worst_case_nanos": 1_000_000}]


async def test_the_same_request_is_the_same_run_and_another_body_is_refused(
    store: RunStore, tenant_id: UUID, session_id: str
) -> None:
    request_id = new_id()
    first, _ = await accepted(store, submission(tenant_id, session_id, WHO, request_id=request_id))
    again, _ = await accepted(store, submission(tenant_id, session_id, WHO, request_id=request_id))
    other, _ = await accepted(store, submission(tenant_id, session_id, WHO, request_id=request_id, digest=b"other"))
    assert (again.outcome, again.run_id) == (Outcome.REPLAYED, first.run_id)
    assert other.outcome is Outcome.REUSED


async def test_one_run_a_session_is_active_and_others_wait_their_turn(
    store: RunStore, tenant_id: UUID, session_id: str
) -> None:
    first, _ = await accepted(store, submission(tenant_id, session_id, WHO))
    busy, _ = await accepted(store, submission(tenant_id, session_id, WHO))
    queued, _ = await accepted(store, submission(tenant_id, session_id, WHO, queued=True))
    assert (busy.outcome, busy.run_id) == (Outcome.BUSY, first.run_id)
    assert queued.outcome is Outcome.SUBMITTED
    found = await store.get(tenant_id, queued.run_id)
    assert found is not None
    assert found.state is RunState.SUBMITTED


async def test_thirty_two_runs_may_wait(store: RunStore, tenant_id: UUID, session_id: str) -> None:
    await accepted(store, submission(tenant_id, session_id, WHO))
    outcomes = [
        (await accepted(store, submission(tenant_id, session_id, WHO, queued=True)))[0].outcome for _ in range(33)
    ]
    assert outcomes == [Outcome.SUBMITTED] * 32 + [Outcome.QUEUE_FULL]


@pytest.mark.parametrize("state", [RunState.COMPLETED, RunState.FAILED])
async def test_the_end_of_a_run_starts_the_next_one_in_the_same_transaction(
    store: RunStore, tenant_id: UUID, session_id: str, state: RunState
) -> None:
    _, run = await accepted(store, submission(tenant_id, session_id, WHO))
    second, _ = await accepted(store, submission(tenant_id, session_id, WHO, queued=True))
    third, _ = await accepted(store, submission(tenant_id, session_id, WHO, queued=True))

    events = run.numbered(Ended())
    change = Change(run.totals, "key:dead", events=events)
    ended = await store.end(run.fence(1), change, Ending(state, "done"), takes_next=True)

    assert ended is not None
    assert ended.next_run == second.run_id
    loaded = await store.load(tenant_id, second.run_id)
    assert loaded is not None
    assert (loaded.run.epoch, loaded.run.accepted, loaded.run.recovery_count) == (1, True, 0)
    told = await store.events(tenant_id, second.run_id, 0, 10)
    assert [event.payload for event in told] == [StateChanged(RunState.SUBMITTED), StateChanged(RunState.WORKING)]
    waiting = await store.get(tenant_id, third.run_id)
    assert waiting is not None
    assert waiting.state is RunState.SUBMITTED


async def test_runs_wait_in_the_order_in_which_they_were_accepted_whatever_the_clocks_of_replicas(
    store: RunStore, tenant_id: UUID, session_id: str
) -> None:
    _, run = await accepted(store, submission(tenant_id, session_id, WHO))
    # An id has the time of the replica that makes it: the second one's clock is behind.
    wanted = sorted((submission(tenant_id, session_id, WHO, queued=True) for _ in range(2)), key=_id)
    for each in reversed(wanted):
        assert (await accepted(store, each))[0].outcome is Outcome.SUBMITTED

    change = Change(run.totals, "key:dead", events=run.numbered(Ended()))
    ended = await store.end(run.fence(1), change, Ending(RunState.COMPLETED), takes_next=True)

    assert ended is not None
    assert ended.next_run == wanted[1].run_id


async def test_a_draining_replica_leaves_the_next_run_to_whoever_comes(
    store: RunStore, postgres: ClonedDatabase, tenant_id: UUID, session_id: str
) -> None:
    _, run = await accepted(store, submission(tenant_id, session_id, WHO))
    second, _ = await accepted(store, submission(tenant_id, session_id, WHO, queued=True))
    change = Change(run.totals, "key:dead", events=run.numbered(Ended()))
    await store.end(run.fence(1), change, Ending(RunState.COMPLETED), takes_next=False)

    async with dying(postgres, lease_seconds=60) as other:

        async def taken() -> bool:
            return (tenant_id, second.run_id) in await other.lease(100)

        assert await until(taken)
        loaded = await other.load(tenant_id, second.run_id)
        assert loaded is not None
        assert (loaded.run.epoch, loaded.run.recovery_count) == (1, 0)


async def test_a_run_that_waits_for_a_person_keeps_its_session(
    store: RunStore, tenant_id: UUID, session_id: str
) -> None:
    _, run = await accepted(store, submission(tenant_id, session_id, WHO))
    await accepted(store, submission(tenant_id, session_id, WHO, queued=True))
    change = Change(run.totals, "key:dead", events=run.numbered(StateChanged(RunState.INPUT_REQUIRED)))
    ending = Ending(RunState.INPUT_REQUIRED, error=RunError("EFFECT_UNKNOWN", "?"))
    ended = await store.end(run.fence(1), change, ending, takes_next=True)
    assert ended is not None
    assert ended.next_run is None
    assert (await accepted(store, submission(tenant_id, session_id, WHO)))[0].outcome is Outcome.BUSY


@pytest.mark.parametrize("moved", [{"epoch": 0}, {"epoch": 2}, {"version": 1}, {"last_event": 3}])
async def test_a_ghost_writes_nothing(store: RunStore, owner: Database, run: DeadRun, moved: dict[str, int]) -> None:
    events = run.numbered(TextAdded(2, 1, "boo"))
    fence = run.fence(1, **moved)
    change = Change(replace(run.totals, steps=9), "key:dead", begun=(Step(3, StepKind.APPEND),), events=events)

    assert await store.advance(fence, change) is None
    assert await store.end(fence, change, Ending(RunState.COMPLETED, "boo"), takes_next=True) is None

    found = await store.get(run.tenant_id, run.run_id)
    assert found is not None
    assert (found.state, found.step_count, found.last_event_sequence, found.answer) == (RunState.WORKING, 2, 1, "")
    assert len(await store.events(run.tenant_id, run.run_id, 0, 10)) == 1
    assert len(await rows(owner, "SELECT 1 FROM gateway.run_steps WHERE run_id = $1", run.run_id)) == 2


async def test_a_batch_holds_several_tenants_and_leaves_ghosts_out(store: RunStore) -> None:
    first = (await accepted(store, submission(new_id(), str(new_id()), WHO)))[1]
    second = (await accepted(store, submission(new_id(), str(new_id()), WHO)))[1]
    ghost = (await accepted(store, submission(new_id(), str(new_id()), WHO)))[1]
    text = TextAdded(2, 1, "word")
    batches = [Batch(each.fence(1), each.numbered(text)) for each in (first, second)]
    batches.append(Batch(ghost.fence(1, epoch=7), ghost.numbered(text)))

    written = await store.append_events(batches)

    assert set(written) == {first.run_id, second.run_id}
    for each in (first, second):
        told = await store.events(each.tenant_id, each.run_id, 1, 10)
        assert [(event.sequence, event.payload, event.create_time) for event in told] == [
            (2, text, written[each.run_id])
        ]
    assert await store.events(ghost.tenant_id, ghost.run_id, 1, 10) == []


async def test_a_lease_that_ran_out_is_taken_once_and_counts_a_recovery(postgres: ClonedDatabase) -> None:
    async with dying(postgres) as gone, dying(postgres, lease_seconds=60) as one, dying(postgres) as other:
        _, run = await accepted(gone, submission(new_id(), str(new_id()), WHO))
        await died(postgres, run.run_id)
        taken = await until(lambda: one.lease(100))
        assert (run.tenant_id, run.run_id) in taken
        assert (run.tenant_id, run.run_id) not in await other.lease(100)
        loaded = await one.load(run.tenant_id, run.run_id)
        assert loaded is not None
        assert (loaded.run.epoch, loaded.run.recovery_count, loaded.agent) == (2, 1, WHO)
        assert await gone.load(run.tenant_id, run.run_id) is None
        assert not await run.advance(TextAdded(2, 1, "too late"))
        assert not await run.show(TextAdded(2, 1, "too late"))
        assert await gone.renew([loaded.run]) == set()
        assert await one.renew([loaded.run]) == {run.run_id}


async def test_runs_that_nobody_drives_are_counted_with_how_long_the_oldest_waits(
    database_factory: Callable[[], Awaitable[ClonedDatabase]],
) -> None:
    # In a database of its own: runs of other tests would lapse meanwhile.
    own = await database_factory()
    async with dying(own, lease_seconds=0.1) as gone, dying(own, lease_seconds=300) as alive:
        await accepted(alive, submission(new_id(), str(new_id()), WHO))
        assert await alive.waiting() == WaitingRuns(0, 0.0)
        _, run = await accepted(gone, submission(new_id(), str(new_id()), WHO))

        async def waits() -> bool:
            return (await alive.waiting()).count == 1

        await until(waits)
        first = await alive.waiting()

        async def longer() -> bool:
            return (await alive.waiting()).oldest_seconds > first.oldest_seconds

        await until(longer)
        assert await alive.lease(100) == [(run.tenant_id, run.run_id)]
        assert await alive.waiting() == WaitingRuns(0, 0.0)


async def test_released_leases_are_taken_at_once_and_count_no_recovery(postgres: ClonedDatabase) -> None:
    async with dying(postgres, lease_seconds=60) as draining, dying(postgres, lease_seconds=60) as other:
        _, run = await accepted(draining, submission(new_id(), str(new_id()), WHO))
        assert await draining.release() == 1
        assert (run.tenant_id, run.run_id) in await until(lambda: other.lease(100))
        loaded = await other.load(run.tenant_id, run.run_id)
        assert loaded is not None
        assert (loaded.run.recovery_count, loaded.run.accepted) == (0, False)


async def test_what_is_loaded_is_what_was_written(store: RunStore, postgres: ClonedDatabase) -> None:
    async with dying(postgres) as gone:
        _, run = await accepted(gone, submission(new_id(), str(new_id()), WHO, text="hi"))
        await run.show(TextAdded(2, 1, "Let me "), TextAdded(2, 1, "see"))
        await died(postgres, run.run_id)
        await until(lambda: store.lease(100))
        loaded = await store.load(run.tenant_id, run.run_id)
        assert loaded is not None
        assert loaded.history.shown_from == 2
        assert (loaded.run.text, loaded.run.metadata, loaded.run.streamed) == ("hi", {"from": "a test"}, True)
        taken = DeadRun(store, run.tenant_id, run.run_id, epoch=2, last_event=3)
        await taken.call_tools(("clock", {"timezone": "UTC"}), ("calculator", {"expression": "1/3", "n": 1.5}))
        loaded = await store.load(run.tenant_id, run.run_id)
    assert loaded is not None
    assert loaded.steps[1].result == asks_for(
        ("clock", {"timezone": "UTC"}), ("calculator", {"expression": "1/3", "n": 1.5})
    )
    assert [step.state for step in loaded.steps] == [StepState.DONE] * 2 + [StepState.STARTED] * 2
    assert loaded.steps[3].intent is not None
    assert loaded.steps[3].intent.arguments == {"expression": "1/3", "n": 1.5}


async def test_lists_are_newest_first_and_filtered(store: RunStore, tenant_id: UUID) -> None:
    made = []
    for _ in range(3):
        _, run = await accepted(store, submission(tenant_id, str(new_id()), WHO))
        made.append(run.run_id)
    found, more = await store.page(tenant_id, RunFilter(), None, 10)
    assert not more
    assert [run.run_id for run in found] == made[::-1]
    older, more = await store.page(tenant_id, RunFilter(agent_id=WHO.agent_id), made[2], 1)
    assert ([run.run_id for run in older], more) == ([made[1]], True)
    assert await store.page(tenant_id, RunFilter(state=RunState.FAILED), None, 10) == ((), False)
    one, _ = await store.page(tenant_id, RunFilter(session_id=found[0].session_id), None, 10)
    assert [run.run_id for run in one] == [made[2]]


async def test_a_sum_with_an_unknown_price_is_unknown(store: RunStore, run: DeadRun) -> None:
    run.totals = replace(run.totals, usage=TokenUsage(1, 2, 3, 4), cost_nanos=5, unpriced_steps=1)
    assert await run.advance()
    found = await store.get(run.tenant_id, run.run_id)
    assert found is not None
    assert (found.usage, found.cost_nanos) == (TokenUsage(1, 2, 3, 4), None)


async def test_a_lease_is_measured_by_the_database_alone(store: RunStore, owner: Database, run: DeadRun) -> None:
    (row,) = await rows(
        owner, "SELECT lease_until - create_time AS lasts FROM gateway.runs WHERE run_id = $1", run.run_id
    )
    # To the microsecond: both are of one clock, at one moment.
    assert row["lasts"] == timedelta(seconds=60)
