"""What the gateway's role may see and do, and that what it asks is found by an index."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from minion_postgres import Database, queries
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid4

from tests.minion_gateway.runs.dead import accepted, agent, dying, submission

TABLES = ("agent_snapshots", "runs", "run_steps", "run_events", "attempts")
_QUERIES = queries.load("minion_gateway.runs")


def new_id() -> UUID:
    return UUID(int=uuid4().int)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def app(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The database as the gateway sees it."""
    async with await postgres.connect("gateway") as database:
        yield database


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owner(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The database as its owner sees it."""
    async with await postgres.connect("gateway", "owner") as database:
        yield database


@pytest.fixture
def tenant_id() -> UUID:
    return new_id()


@pytest_asyncio.fixture(loop_scope="session")
async def run_id(postgres: ClonedDatabase, tenant_id: UUID) -> UUID:
    """A run with something in each table."""
    async with dying(postgres, lease_seconds=60) as store:
        _, run = await accepted(store, submission(tenant_id, str(new_id()), agent()))
    return run.run_id


@pytest.mark.parametrize("table", TABLES)
async def test_without_a_tenant_there_are_no_rows(app: Database, owner: Database, run_id: UUID, table: str) -> None:
    count = f"SELECT count(*) FROM gateway.{table}"  # noqa: S608 - a name of ours
    assert await owner.fetch_value(count) > 0
    assert await app.fetch_value(count) == 0
    async with app.transaction(new_id()) as transaction:
        assert await transaction.fetch_value(count) == 0


async def test_a_tenant_sees_its_own_run(app: Database, tenant_id: UUID, run_id: UUID) -> None:
    async with app.transaction(tenant_id) as transaction:
        assert await transaction.fetch_value("SELECT run_id FROM gateway.runs") == run_id


@pytest.mark.parametrize("schema", ["registry", "session", "memory", "activity"])
async def test_other_schemas_are_closed(app: Database, schema: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.fetch(f"SELECT * FROM {schema}.schema_migrations")  # noqa: S608 - a name of ours
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(f"CREATE TABLE {schema}.mine (a int)")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM gateway.runs",
        "UPDATE gateway.run_events SET kind = 'x'",
        "DELETE FROM gateway.run_events",
        "UPDATE gateway.ledger SET cost_nanos = 0",
        "DELETE FROM gateway.ledger",
        "DELETE FROM gateway.attempts",
        "UPDATE gateway.agent_snapshots SET snapshot = '{}'",
        "CREATE TABLE gateway.mine (a int)",
        "CREATE TEMPORARY TABLE mine (a int)",
    ],
)
async def test_what_was_written_stays(app: Database, tenant_id: UUID, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with app.transaction(tenant_id) as transaction:
            await transaction.execute(statement)


async def test_work_across_tenants_returns_ids_alone(app: Database, run_id: UUID, tenant_id: UUID) -> None:
    for query, arguments in (
        (_QUERIES.lease_runs, (new_id(), timedelta(seconds=1), 1)),
        (_QUERIES.renew_leases, (new_id(), timedelta(seconds=1), [tenant_id], [run_id], [1])),
    ):
        names = re.search(r"SELECT (.*) FROM", query)
        assert names is not None
        assert set(names[1].split(", ")) <= {"tenant_id", "run_id"}
        await app.fetch(query, *arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "index"),
    [
        ("list_runs", (None, None, None, None, 10, 10_000), "runs_pkey"),
        ("list_session_runs", (new_id(), None, None, None, 10, 10_000), "runs_session"),
        ("list_agent_runs", (None, new_id(), None, None, 10, 10_000), "runs_agent"),
        ("find_request", (new_id(),), "runs_request"),
        ("list_steps", (new_id(),), "run_steps_pkey"),
        ("list_run_steps", (new_id(), 0, 10), "run_steps_pkey"),
        ("list_run_steps", (new_id(), 0, 10), "attempts_pkey"),
        ("list_run_steps", (new_id(), 0, 10), "ledger_pkey"),
        ("find_told", (new_id(),), "run_events_pkey"),
        ("find_shown_text", (new_id(), 2, 1), "run_events_pkey"),
    ],
)
async def test_queries_use_their_index(
    app: Database, tenant_id: UUID, run_id: UUID, name: str, arguments: tuple[object, ...], index: str
) -> None:
    async with app.transaction(tenant_id) as transaction:
        await transaction.execute("SET LOCAL enable_seqscan = off")
        # A generic plan, as a prepared statement has it, knows no values.
        rows = await transaction.fetch(f"EXPLAIN {_QUERIES[name]}", tenant_id, *arguments)
    plan = "\n".join(row[0] for row in rows)
    assert index in plan, plan
    assert "Seq Scan" not in plan, plan


async def test_the_picker_looks_at_what_is_at_work_alone(owner: Database, run_id: UUID) -> None:
    async with owner.transaction(None) as transaction:
        await transaction.execute("SET LOCAL enable_seqscan = off")
        rows = await transaction.fetch(
            "EXPLAIN SELECT run_id FROM gateway.runs WHERE state = 'WORKING' AND lease_until < now()"
        )
    assert "runs_working" in "\n".join(row[0] for row in rows)
