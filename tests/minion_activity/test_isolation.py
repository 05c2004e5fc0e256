"""What the app role may do and see, and which indexes its queries use."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from minion_postgres import SCHEMAS, Connection, Database
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_activity.stage import Stub, activity, full, new_id, recorded

_LAST_ID = UUID(int=2**128 - 1)


@pytest_asyncio.fixture(loop_scope="session")
async def row(activities: Stub) -> str:
    """The id of a row of the test's tenant."""
    given = full()
    await recorded(activities, given)
    return given.activity_id


@pytest_asyncio.fixture(loop_scope="session")
async def connection(postgres: ClonedDatabase) -> AsyncIterator[Connection]:
    """One connection as the app role."""
    opened = await asyncpg.connect(postgres.dsn("activity"))
    yield opened
    await opened.close()


async def test_without_a_tenant_no_row_is_seen(app: Database, row: str) -> None:
    assert row
    assert await app.fetch("SELECT FROM activity.activities") == []
    assert await app.fetch("SELECT FROM activity.agent_stats") == []


async def test_another_tenant_sees_no_row(app: Database, row: str, tenant_id: UUID) -> None:
    assert row
    async with app.transaction(tenant_id) as own:
        assert len(await own.fetch("SELECT FROM activity.activities")) == 1
    async with app.transaction(uuid4()) as foreign:
        assert await foreign.fetch("SELECT FROM activity.activities") == []
        assert await foreign.fetch("SELECT * FROM activity.sum_up($1, $1, '-infinity', 'infinity')", tenant_id) != []
        assert await foreign.fetch("SELECT FROM activity.agent_stats") == []


async def test_a_function_reads_the_tenant_that_it_is_given_and_leaves_none_behind(
    connection: Connection, row: str, tenant_id: UUID
) -> None:
    found = await connection.fetch("SELECT * FROM activity.get_activity($1, $2)", tenant_id, UUID(row))
    assert len(found) == 1
    assert await connection.fetch("SELECT FROM activity.activities") == []


async def test_a_row_of_another_tenant_is_not_written(app: Database, row: str, tenant_id: UUID) -> None:
    columns = await app.fetch_value(
        "SELECT string_agg(attname, ', ') FROM pg_attribute WHERE attrelid = 'activity.activities'::regclass"
        " AND attnum > 2 AND NOT attisdropped"
    )
    copied = f"INSERT INTO activity.activities SELECT $1, $2, {columns} FROM activity.activities"  # noqa: S608 - ours
    async with app.transaction(tenant_id) as transaction:
        await transaction.execute(copied, tenant_id, uuid7())
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with app.transaction(tenant_id) as transaction:
            await transaction.execute(copied, uuid4(), uuid7())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE activity.activities SET name = 'other'",
        "UPDATE activity.activities SET tenant_id = tenant_id WHERE false",
        "DELETE FROM activity.activities",
        "TRUNCATE activity.activities",
        "SELECT FROM activity.activities FOR UPDATE",
        "SELECT FROM activity.activities_default",
        "INSERT INTO activity.activities_default (tenant_id) VALUES (NULL)",
        "UPDATE activity.activities_default SET name = 'other'",
        "DELETE FROM activity.activities_default",
        "DROP TABLE activity.activities_default",
        "ALTER TABLE activity.activities DISABLE ROW LEVEL SECURITY",
        "SELECT activity.make_partition('2020-01-01')",
        "SELECT activity.make_partitions(1)",
        "CREATE TABLE activity.own (id int)",
        "CREATE TEMPORARY TABLE own (id int)",
        "SET ROLE minion_activity_owner",
    ],
)
async def test_the_app_role_is_refused(app: Database, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(statement)


async def test_the_app_role_is_refused_on_every_partition(app: Database, owner: Database) -> None:
    names = await owner.fetch("SELECT inhrelid::regclass::text AS name FROM pg_inherits"
                              " WHERE inhparent = 'activity.activities'::regclass")  # fmt: skip
    assert len(names) >= 5
    for name in names:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.fetch(f"SELECT FROM {name['name']}")


@pytest.mark.parametrize("schema", [schema for schema in SCHEMAS if schema != "activity"])
async def test_the_app_role_is_refused_in_other_schemas(app: Database, schema: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.fetch(f"TABLE {schema}.schema_migrations")


async def test_every_tenant_table_is_guarded(owner: Database) -> None:
    rows = await owner.fetch(
        """SELECT c.relname AS name, c.relrowsecurity AND c.relforcerowsecurity AS guarded,
                  (SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
                    WHERE i.indrelid = c.oid AND i.indisprimary) AS leads
             FROM pg_class c WHERE c.relnamespace = 'activity'::regnamespace AND c.relkind IN ('r', 'p')"""
    )
    tables = {row["name"]: (row["guarded"], row["leads"]) for row in rows}
    tables.pop("schema_migrations")
    assert set(tables.values()) == {(True, "tenant_id")}
    assert {"activities", "activities_default"} <= set(tables)


async def test_no_function_of_the_app_role_runs_as_the_owner(owner: Database) -> None:
    definers = await owner.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'activity'::regnamespace AND prosecdef"
    )
    assert definers == []


_INDEXES = {"agent": "_tenant_id_agent_id_", "session": "_tenant_id_session_id_", "run": "_tenant_id_run_id_"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crowd(postgres: ClonedDatabase) -> tuple[UUID, UUID, UUID, UUID]:
    """A tenant with rows enough for the planner to care; and an agent, a session, a run of it."""
    tenant_id = uuid7()
    agents, sessions, runs = ([uuid7() for _ in range(count)] for count in (20, 200, 1_000))
    async with await postgres.connect("activity") as app:
        for start in range(0, 4_000, 500):
            rows = [
                _stored(number, agents[number % 20], sessions[number % 200], runs[number % 1_000])
                for number in range(start, start + 500)
            ]
            await app.execute("SELECT activity.record_activities($1, 'test', $2)", tenant_id, rows)
    async with await postgres.connect("activity", "owner") as owner:
        # This month's alone: of partitions that it knows to be empty the planner takes any plan.
        place = await owner.fetch_value("SELECT max(tableoid::regclass::text) FROM activity.activities")
        await owner.execute(f"ANALYZE {place}")
    return tenant_id, agents[0], sessions[0], runs[0]


def _stored(number: int, agent: UUID, session: UUID, run: UUID) -> dict[str, Any]:
    texts = dict.fromkeys(("currency", "name", "user_id", "trace_id", "error_reason", "error_message"), "")
    counts = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "step_sequence", "byte_count")
    return {
        "activity_id": uuid7(),
        "agent_id": agent,
        "session_id": session,
        "run_id": run,
        "start_time": f"2026-01-{number % 28 + 1:02}T00:00:00Z",
        "agent_revision": 1,
        "kind": ("run", "llm_call", "tool_call", "custom")[number // 20 % 4],
        "status": "succeeded",
        "metadata": {"number": number},
        **texts,
        **dict.fromkeys(counts, 1),
    }


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ((), "_tenant_id_start_time_"),
        (("kind", "status", "start"), "_tenant_id_start_time_"),
        (("agent",), _INDEXES["agent"]),
        (("agent", "kind", "status", "start"), _INDEXES["agent"]),
        (("session",), _INDEXES["session"]),
        (("agent", "session"), _INDEXES["session"]),
        (("run",), _INDEXES["run"]),
        (("agent", "session", "run", "status"), _INDEXES["run"]),
    ],
    ids=lambda given: "+".join(given) if isinstance(given, tuple) else None,
)
async def test_each_list_reads_by_an_index_in_its_own_order(
    app: Database, crowd: tuple[UUID, UUID, UUID, UUID], filters: tuple[str, ...], index: str
) -> None:
    names = ("agent", "session", "run", "kind", "status", "start")
    tenant_id, agent, session, run = crowd
    async with app.transaction(tenant_id) as transaction:
        query = await transaction.fetch_value(
            "SELECT activity.list_query($1, $2, $3, $4, $5, $6)", *(name in filters for name in names)
        )
        given = [tenant_id, agent, session, run, "tool_call", "succeeded", "2026-01-02", "2026-01-20", _LAST_ID, 10]
        casts = ["uuid"] * 4 + ["text"] * 2 + ["timestamptz"] * 2 + ["uuid", "integer"]
        for number in range(10, 0, -1):
            query = query.replace(f"${number}", f"'{given[number - 1]}'::{casts[number - 1]}")
        plan = "\n".join(line[0] for line in await transaction.fetch(f"EXPLAIN {query}"))
    scans = [line for line in plan.splitlines() if "Scan" in line]
    assert len(scans) == 5
    assert [line for line in scans if index not in line] == [], plan
    assert "Sort  (" not in plan, plan


async def test_an_activity_is_read_from_its_partition_alone(app: Database, row: str, tenant_id: UUID) -> None:
    async with app.transaction(tenant_id) as transaction:
        lines = await transaction.fetch(
            "EXPLAIN SELECT a.* FROM activity.activities a"  # noqa: S608 - ids of ours
            f" WHERE a.tenant_id = '{tenant_id}' AND a.activity_id = '{row}'"
        )
    plan = "\n".join(line[0] for line in lines)
    assert plan.count("Scan") == 1
    assert "pkey" in plan


async def test_stats_read_the_agents_rows_by_its_index(
    connection: Connection, crowd: tuple[UUID, UUID, UUID, UUID]
) -> None:
    tenant_id, agent, *_ = crowd

    async def scans() -> dict[str, int]:
        # Counted within the transaction, so no other test's scan is in it.
        rows = await connection.fetch(
            "SELECT c.relname, pg_stat_get_xact_numscans(c.oid) AS scans FROM pg_class c"
            " WHERE c.relnamespace = 'activity'::regnamespace AND c.relkind IN ('r', 'i')"
        )
        return {row["relname"]: row["scans"] for row in rows if row["scans"]}

    async with connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        found = await connection.fetch(
            "SELECT run_count FROM activity.get_agent_stats($1, $2, NULL, NULL, NULL, 100, false)", tenant_id, agent
        )
        assert [row["run_count"] for row in found] == [50, 50]
        used = await scans()
    # The calls from an index, the runs from another; of each partition, and nothing else.
    assert [name for name in used if "_tenant_id_agent_id_start_time_" not in name] == []
    assert f"activities_{datetime.now(UTC):%Y_%m}_tenant_id_agent_id_start_time_agent_revi_idx" in used


async def test_stats_of_revisions_read_their_time_alone(app: Database, crowd: tuple[UUID, UUID, UUID, UUID]) -> None:
    tenant_id, agent, *_ = crowd
    async with app.transaction(tenant_id) as transaction:
        query = await transaction.fetch_value("SELECT activity.stats_query(true, true)")
        given = [f"'{tenant_id}'::uuid", f"'{agent}'::uuid", "'2026-01-20'::timestamptz", "'infinity'::timestamptz"]
        for number, value in enumerate([*given, "'{1,2}'::bigint[]"], 1):
            query = query.replace(f"${number}", value)
        plan = "\n".join(line[0] for line in await transaction.fetch(f"EXPLAIN {query}"))
    month = f"{datetime.now(UTC):%Y_%m}"
    scans = re.findall(rf"(Index Only Scan|Index Scan) using activities_{month}_tenant_id_agent_id_start_time_.*", plan)
    # Calls and runs, the latter without the rows.
    assert sorted(scans) == ["Index Only Scan", "Index Scan"], plan
    # Both from the time on: what the agent did before is not looked at.
    conditions = re.findall("Index Cond: (.*)", plan)
    assert conditions
    assert all("agent_id =" in found and "start_time >=" in found for found in conditions), plan


async def test_stats_without_calls_read_no_rows(app: Database, crowd: tuple[UUID, UUID, UUID, UUID]) -> None:
    tenant_id, agent, *_ = crowd
    async with app.transaction(tenant_id) as transaction:
        query = await transaction.fetch_value("SELECT activity.stats_query(true, false)")
        given = [f"'{tenant_id}'::uuid", f"'{agent}'::uuid", "'2026-01-20'::timestamptz", "'infinity'::timestamptz"]
        for number, value in enumerate([*given, "'{1,2}'::bigint[]"], 1):
            query = query.replace(f"${number}", value)
        plan = "\n".join(line[0] for line in await transaction.fetch(f"EXPLAIN {query}"))
    # As a rollout asks for them every few seconds.
    assert set(re.findall(r"(\w+ \w* ?Scan) using", plan)) == {"Index Only Scan"}, plan
    assert not re.search(r"(Seq|Bitmap Heap) Scan", plan), plan


async def test_metadata_is_found_by_its_index(owner: Database, crowd: tuple[UUID, UUID, UUID, UUID]) -> None:
    tenant_id, *_ = crowd
    # As the owner, whose functions such searches will be.
    lines = await owner.fetch(
        "EXPLAIN SELECT activity_id FROM activity.activities"  # noqa: S608 - an id of ours
        f""" WHERE tenant_id = '{tenant_id}' AND metadata @> '{{"number": 7}}'"""
    )
    assert "metadata_idx" in "\n".join(line[0] for line in lines)


async def test_rows_without_metadata_are_not_in_its_index(activities: Stub, owner: Database) -> None:
    given = activity(agent_id=new_id())
    await recorded(activities, given)
    assert await owner.fetch_value(
        "SELECT metadata IS NULL FROM activity.activities WHERE activity_id = $1", UUID(given.activity_id)
    )
