"""The way down takes the jobs along, and leaves no step that nobody will end."""

from collections.abc import Awaitable, Callable
from importlib import resources
from uuid import UUID

from minion_gateway.agents.domain import SummaryPolicy
from minion_gateway.runs.changes import Change, Ending
from minion_gateway.runs.domain import RunState, Step, StepKind
from minion_gateway.runs.happenings import Ended
from minion_postgres import Migrations
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid4

from tests.minion_gateway.runs.dead import accepted, agent, dying, submission
from tests.minion_gateway.runs.stage import rows

FUNCTIONS = ["functions.sql", "functions_summaries.sql"]


async def test_down_and_up_again(database_factory: Callable[[], Awaitable[ClonedDatabase]]) -> None:
    database = await database_factory()
    migrations = Migrations("gateway", resources.files("minion_gateway") / "migrations")
    dsn = database.dsn("gateway", "owner")
    tenant_id = UUID(int=uuid4().int)
    async with dying(database, lease_seconds=60) as store:
        who = agent(summary=SummaryPolicy())
        _, run = await accepted(store, submission(tenant_id, str(uuid4()), who))
        change = Change(run.totals, "key:dead", begun=(Step(3, StepKind.SUMMARY),), events=run.numbered(Ended()))
        assert await store.end(run.fence(1), change, Ending(RunState.COMPLETED, "Done."), takes_next=False)
    async with await database.connect("gateway", "owner") as owner:
        assert len(await rows(owner, "SELECT 1 FROM gateway.summary_jobs")) == 1
        assert await migrations.down(dsn) == ["0002_summaries"]
        assert await rows(owner, "SELECT state FROM gateway.run_steps WHERE kind = 'summary'") == [{"state": "SKIPPED"}]
        assert await rows(owner, "SELECT to_regclass('gateway.summary_jobs') IS NULL AS gone") == [{"gone": True}]
        assert await migrations.up(dsn) == ["0002_summaries", *FUNCTIONS]
        assert await rows(owner, "SELECT 1 FROM gateway.summary_jobs") == []
    assert await migrations.down(dsn, steps=2) == ["0002_summaries", "0001_runs"]
    assert await migrations.up(dsn) == ["0001_runs", "0002_summaries", *FUNCTIONS]
