"""Partitions: where rows go, and how the worker keeps partitions ahead."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
import structlog
from minion_postgres import Connection, Database, Migrations
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import serve

from tests.minion_activity.stage import activity, calling, fetched, id_at, listed, recorded, until

Make = Callable[..., Awaitable[ClonedDatabase]]

_PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'activity.activities'::regclass ORDER BY 1
"""
_PLACE = "SELECT tableoid::regclass::text FROM activity.activities WHERE activity_id = $1"


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_factory: Make) -> ClonedDatabase:
    """A database of the test's own, since partitions are every tenant's."""
    return await database_factory()


@pytest_asyncio.fixture(loop_scope="session")
async def maintainer(database: ClonedDatabase) -> AsyncIterator[Connection]:
    """A connection of the owner's to it."""
    connection = await asyncpg.connect(database.dsn("activity", "owner"))
    yield connection
    await connection.close()


async def _partitions(connection: Connection) -> list[str]:
    return [row["relname"] for row in await connection.fetch(_PARTITIONS)]


def _month(distance: int) -> date:
    today = datetime.now(UTC).date()
    months = today.year * 12 + today.month - 1 + distance
    return date(months // 12, months % 12 + 1, 1)


def _name(month: date) -> str:
    return f"activities_{month:%Y_%m}"


def _begin(month: date) -> datetime:
    return datetime(month.year, month.month, 1, tzinfo=UTC)


async def test_the_migration_makes_this_month_and_the_next_three(maintainer: Connection) -> None:
    assert await _partitions(maintainer) == [*(_name(_month(distance)) for distance in range(4)), "activities_default"]


async def test_the_bounds_are_the_first_ids_of_months(maintainer: Connection) -> None:
    bounds = await maintainer.fetchval(
        "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = to_regclass('activity.' || $1::text)",
        _name(_month(1)),
    )
    first, next_ = (UUID(id_at(_begin(_month(distance)))) for distance in (1, 2))
    # The stage's ids end in 8000… by their variant alone: they are the first of their millisecond.
    assert bounds == f"FOR VALUES FROM ('{first}') TO ('{next_}')"


@pytest.mark.parametrize(
    ("moment", "place"),
    [
        (_begin(_month(0)), _name(_month(0))),
        (_begin(_month(1)) - timedelta(milliseconds=1), _name(_month(0))),
        (_begin(_month(0)) - timedelta(milliseconds=1), "activities_default"),
        (datetime(1970, 1, 1, tzinfo=UTC), "activities_default"),
    ],
)
async def test_a_row_goes_where_the_time_of_its_id_belongs(
    app: Database, owner: Database, tenant_id: UUID, moment: datetime, place: str
) -> None:
    activity_id = UUID(id_at(moment, 7))
    await _insert(app, tenant_id, activity_id)
    assert await owner.fetch_value(_PLACE, activity_id) == f"activity.{place}"


async def _insert(app: Database, tenant_id: UUID, *ids: UUID) -> int:
    row = {
        "start_time": datetime.now(UTC), "agent_revision": 0, "input_tokens": 0, "output_tokens": 0,
        "cached_tokens": 0, "reasoning_tokens": 0, "step_sequence": 0, "byte_count": 1, "kind": "custom",
        "status": "succeeded", "currency": "", "name": "", "user_id": "", "trace_id": "", "error_reason": "",
        "error_message": "",
    }  # fmt: skip
    batch = [{"activity_id": activity_id, **row} for activity_id in ids]
    return int(await app.fetch_value("SELECT activity.record_activities($1, 'test', $2)", tenant_id, batch))


async def test_an_id_of_another_version_is_refused_by_the_table_too(app: Database, tenant_id: UUID) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="activities"):
        await _insert(app, tenant_id, uuid4())


async def test_rows_that_waited_in_the_default_partition_move_into_their_month(
    database: ClonedDatabase, maintainer: Connection, tenant_id: UUID
) -> None:
    month = _month(-2)
    async with serve("activity", database) as served, calling(served, tenant_id) as stub:
        inside = [
            activity(activity_id=id_at(moment, 1))
            for moment in (_begin(month), _begin(_month(-1)) - timedelta(milliseconds=1))
        ]
        outside = activity(activity_id=id_at(_begin(_month(-1)), 1))
        await recorded(stub, *inside, outside)
        before = await listed(stub)
        assert await maintainer.fetchval("SELECT activity.make_partition($1)", month)
        assert not await maintainer.fetchval("SELECT activity.make_partition($1)", month)
        places = [await maintainer.fetchval(_PLACE, UUID(one.activity_id)) for one in (*inside, outside)]
        assert places == [f"activity.{_name(month)}"] * 2 + ["activity.activities_default"]
        # They are the same rows, and still their own keys.
        assert await listed(stub) == before
        assert (await fetched(stub, inside[0].activity_id)).activity_id == inside[0].activity_id
        assert await recorded(stub, *inside, outside) == (0, 3)


async def test_a_partition_is_as_guarded_and_indexed_as_the_first_ones(maintainer: Connection) -> None:
    month = _month(-1)
    await maintainer.execute("SELECT activity.make_partition($1)", month)
    rows = await maintainer.fetch(
        """SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AS guarded,
                  ARRAY(SELECT p.polname::text FROM pg_policy p WHERE p.polrelid = c.oid) AS policies,
                  (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid) AS indexes,
                  (SELECT count(*) FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c') AS checks
             FROM pg_class c WHERE c.oid IN (SELECT inhrelid FROM pg_inherits
                                              WHERE inhparent = 'activity.activities'::regclass)"""
    )
    assert _name(month) in {row["relname"] for row in rows}
    expected = await maintainer.fetchrow(
        """SELECT (SELECT count(*) FROM pg_index WHERE indrelid = 'activity.activities'::regclass) AS indexes,
                  (SELECT count(*) FROM pg_constraint WHERE conrelid = 'activity.activities'::regclass
                      AND contype = 'c') AS checks"""
    )
    assert expected is not None
    assert {(row["guarded"], tuple(row["policies"]), row["indexes"], row["checks"]) for row in rows} == {
        (True, ("owner",), expected["indexes"], expected["checks"])
    }


async def test_a_row_on_its_way_to_the_default_partition_follows_its_month(
    database: ClonedDatabase, maintainer: Connection, tenant_id: UUID
) -> None:
    month = _month(-1)
    late = activity(activity_id=id_at(_begin(month), 1))
    async with serve("activity", database) as served, calling(served, tenant_id) as stub:
        async with maintainer.transaction():
            await maintainer.execute("SELECT activity.make_partition($1)", month)
            on_its_way = asyncio.create_task(recorded(stub, late))
            await _until_somebody_waits(database)
        assert await on_its_way == (1, 0)
    assert await maintainer.fetchval(_PLACE, UUID(late.activity_id)) == f"activity.{_name(month)}"


async def _until_somebody_waits(database: ClonedDatabase) -> None:
    watcher = await asyncpg.connect(database.admin_dsn)

    async def somebody_waits() -> bool:
        waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock')"
        return bool(await watcher.fetchval(waiting, database.name))

    await until(somebody_waits)
    await watcher.close()


async def test_the_worker_makes_what_is_missing_and_goes_on_looking(
    database: ClonedDatabase, maintainer: Connection
) -> None:
    await maintainer.execute(f"DROP TABLE activity.{_name(_month(1))}")
    owner = {"MINION_OWNER_DATABASE_URL": database.dsn("activity", "owner")}
    expected = {_name(_month(distance)) for distance in range(6)}
    with structlog.testing.capture_logs() as lines:

        async def told() -> bool:
            # It tells of partitions once they are there.
            return bool(sum(line["event"] == "made partitions" for line in lines) == 2)

        async with serve("activity", database, environ=owner, partition_months_ahead=5, partition_check_seconds=0.05):
            await _until_there_are(maintainer, expected)
            await maintainer.execute(f"DROP TABLE activity.{_name(_month(5))}")
            await _until_there_are(maintainer, expected)
            await until(told)
    made = [line["months"] for line in lines if line["event"] == "made partitions"]
    assert made == [[f"{_month(distance):%Y-%m}" for distance in (1, 4, 5)], [f"{_month(5):%Y-%m}"]]
    assert not [line for line in lines if line["log_level"] in ("warning", "error")]


async def _until_there_are(connection: Connection, names: set[str]) -> None:
    async def there_are() -> bool:
        return names <= set(await _partitions(connection))

    await until(there_are)


async def test_without_the_owners_database_a_warning_is_logged_once(database: ClonedDatabase, tenant_id: UUID) -> None:
    with structlog.testing.capture_logs() as lines:
        async with (
            serve("activity", database, partition_check_seconds=0.05) as served,
            calling(served, tenant_id) as stub,
        ):
            assert await listed(stub) == []
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [line["setting"] for line in warnings] == ["MINION_ACTIVITY_OWNER_DATABASE_URL"]


async def test_of_several_replicas_one_makes_the_partitions(database: ClonedDatabase, maintainer: Connection) -> None:
    other = await asyncpg.connect(database.dsn("activity", "owner"))
    async with maintainer.transaction():
        assert len(await maintainer.fetch("SELECT activity.make_partitions(5)")) == 2
        assert await other.fetch("SELECT activity.make_partitions(5)") == []
    assert await other.fetch("SELECT activity.make_partitions(5)") == []
    await other.close()


async def test_the_schema_goes_down_and_up_again(database: ClonedDatabase, maintainer: Connection) -> None:
    migrations = Migrations("activity", resources.files("minion_activity") / "migrations")
    owner = database.dsn("activity", "owner")
    names = [step.name for step in migrations.steps]
    assert await migrations.down(owner, len(names)) == names[::-1]
    left = await maintainer.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'activity'::regnamespace AND relkind IN ('r', 'p', 'v')"
    )
    assert [row["relname"] for row in left] == ["schema_migrations"]
    assert await maintainer.fetch("SELECT FROM pg_proc WHERE pronamespace = 'activity'::regnamespace") == []
    up = await migrations.up(owner)
    assert up[: len(names)] == names
    assert "functions.sql" in up[len(names) :]
    assert len(await _partitions(maintainer)) == 5
