"""Looking for runs that nobody drives: what stands in the way of one is nobody else's business."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from minion_errors import FailedPrecondition, Unavailable
from minion_gateway.runs.domain import History
from minion_gateway.runs.driver import Driver
from minion_gateway.runs.feeds import Feeds
from minion_gateway.runs.metrics import RunMetrics
from minion_gateway.runs.store import Loaded
from minion_gateway.runs.turn import Turn
from minion_gateway.runs.worker import LeaseKeeper
from opentelemetry.trace import NoOpTracer
from prometheus_client import CollectorRegistry

from tests.minion_gateway.runs.dead import agent, leased

TENANT = UUID(int=1)
FIRST, SECOND = UUID(int=2), UUID(int=3)
# A later release's behaviour, a step of a kind that this one doesn't know.
UNREADABLE = (FailedPrecondition("?", reason="AGENT_NOT_ACTIVE"), ValueError("'delegate' is not a valid StepKind"))


class Replica:
    """A store with two runs to lease, and a driver that can't take the first one; `taken` is what it was given."""

    def __init__(self, fault: Exception) -> None:
        self.room = 10
        self.taken: asyncio.Queue[UUID] = asyncio.Queue()
        self.asked = 0
        self._fault = fault

    async def lease(self, limit: int) -> list[tuple[UUID, UUID]]:
        assert limit == self.room
        self.asked += 1
        return [(TENANT, FIRST), (TENANT, SECOND)]

    async def take(self, tenant_id: UUID, run_id: UUID, *, began_at: float) -> None:
        assert tenant_id == TENANT
        assert began_at <= asyncio.get_running_loop().time()
        self.taken.put_nowait(run_id)
        if run_id == FIRST:
            raise self._fault


async def picked(replica: Replica, count: int) -> list[UUID]:
    """What is taken first, in order."""
    keeper = LeaseKeeper(cast("Any", replica), cast("Any", replica), RunMetrics(CollectorRegistry()), lease_seconds=0.1)
    picking = asyncio.create_task(keeper.pick())
    try:
        async with asyncio.timeout(60):
            found = [await replica.taken.get() for _ in range(count)]
        assert not picking.done()
    finally:
        picking.cancel()
    return found


@pytest.mark.parametrize("fault", UNREADABLE, ids=["refused", "unknown"])
async def test_a_run_that_cannot_be_read_holds_up_no_other(fault: Exception) -> None:
    assert await picked(Replica(fault), 3) == [FIRST, SECOND, FIRST]


async def test_a_database_that_is_away_is_asked_about_no_further_runs() -> None:
    assert await picked(Replica(Unavailable("Away.", reason="DATABASE_UNAVAILABLE")), 2) == [FIRST, FIRST]


def loaded(epoch: int, **values: Any) -> Loaded:
    """A run that was leased for the so manieth time."""
    run = leased(UUID(int=4), tenant_id=TENANT, run_id=FIRST, session_id=SECOND, epoch=epoch)
    return Loaded(run, agent(**values), (), History())


class Held:
    """A store that has the run at its second lease, and an engine that drives a run for ever."""

    def __init__(self) -> None:
        self.turns: asyncio.Queue[Turn] = asyncio.Queue()
        self.slow = 0

    async def load(self, *_names: UUID) -> Loaded:
        for _ in range(self.slow):
            await asyncio.sleep(0)
        return loaded(2)

    async def release(self) -> int:
        return 0

    async def drive(self, turn: Turn) -> None:
        self.turns.put_nowait(turn)
        await asyncio.Event().wait()


def driving(held: Held, feeds: Feeds) -> Driver:
    """A driver on its own."""
    store, telemetry = cast("Any", held), cast("Any", SimpleNamespace(tracer=NoOpTracer()))
    metrics = RunMetrics(CollectorRegistry())
    driver = Driver(store, feeds, store, telemetry, metrics, lease_seconds=60, maximum_runs=10)
    driver.use(cast("Any", held))
    return driver


async def test_a_run_of_a_later_release_has_no_feed_here() -> None:
    feeds = Feeds()
    driver = driving(Held(), feeds)
    with pytest.raises(FailedPrecondition):
        driver.drive(loaded(2, behavior_type="supervisor"), began_at=0.0)
    # A watcher reads the database, for another replica drives the run.
    assert feeds.get(FIRST) is None
    assert driver.room == 10


async def test_events_that_come_too_late_for_a_lease_end_no_later_one_of_this_replica() -> None:
    held, now = Held(), asyncio.get_running_loop().time()
    driver = driving(held, Feeds())
    driver.drive(loaded(1), began_at=now)
    async with asyncio.timeout(60):
        first = await held.turns.get()
        # Its lease ran out while it was paused, and this very replica took the run again.
        await driver.take(TENANT, FIRST, began_at=now - 60)
        second = await held.turns.get()
    first.log.lost()
    for _ in range(10):
        await asyncio.sleep(0)
    assert [driven.turn for driven in driver.overdue()] == [second]
    second.log.lost()
    for _ in range(10):
        await asyncio.sleep(0)
    assert driver.room == 10
    await driver.drain()


async def test_a_run_that_is_taken_twice_at_once_is_driven_once() -> None:
    # Handed on with the end of the one before; its lease ran out before it was read, and the picker found it too.
    held, now = Held(), asyncio.get_running_loop().time()
    driver = driving(held, Feeds())
    held.slow = 3
    await asyncio.gather(*(driver.take(TENANT, FIRST, began_at=now) for _ in range(2)))
    async with asyncio.timeout(60):
        await held.turns.get()
    for _ in range(10):
        await asyncio.sleep(0)
    assert held.turns.empty()
    await driver.drain()
