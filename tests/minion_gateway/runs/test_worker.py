"""Looking for runs that nobody drives: what stands in the way of one is nobody else's business."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from minion_errors import FailedPrecondition, Unavailable
from minion_gateway.runs.domain import History, LeasedRun
from minion_gateway.runs.driver import Driver
from minion_gateway.runs.feeds import Feeds
from minion_gateway.runs.metrics import RunMetrics
from minion_gateway.runs.store import Loaded
from minion_gateway.runs.worker import LeaseKeeper
from prometheus_client import CollectorRegistry

from tests.minion_gateway.runs.dead import agent

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


async def test_a_run_of_a_later_release_has_no_feed_here() -> None:
    feeds, nobody = Feeds(), cast("Any", None)
    telemetry = cast("Any", SimpleNamespace(tracer=None))
    metrics = RunMetrics(CollectorRegistry())
    driver = Driver(nobody, feeds, nobody, telemetry, metrics, lease_seconds=60, maximum_runs=10)
    run = LeasedRun(
        tenant_id=TENANT,
        run_id=FIRST,
        session_id=SECOND,
        agent_id=UUID(int=4),
        user_id="ann",
        principal="key:ann",
        text="hello",
        metadata={},
        streamed=True,
        trace_id="",
        span_id="",
        epoch=2,
        create_time=datetime.now(UTC),
    )
    with pytest.raises(FailedPrecondition):
        driver.drive(Loaded(run, agent(behavior_type="supervisor"), (), History()), began_at=0.0)
    # A watcher reads the database, for another replica drives the run.
    assert feeds.get(FIRST) is None
    assert driver.room == 10
