"""The migration runner: up, down, again; functions; turns; what it refuses."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
from minion_errors import FailedPrecondition
from minion_postgres import Database, MigrationError, Migrations
from minion_telemetry import Telemetry
from minion_testing.postgres import ClonedDatabase, ServiceDatabaseSettings
from pydantic import SecretStr

from tests.minion_postgres.conftest import write_migrations

Factory = Callable[..., Awaitable[ClonedDatabase]]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A folder with a first migration and functions."""
    return write_migrations(tmp_path / "session")


@pytest.fixture
async def database(database_factory: Factory) -> ClonedDatabase:
    """A database with roles and schemas alone."""
    return await database_factory(migrated=False)


def add(directory: Path, name: str, up: str, down: str = "SELECT 1;") -> None:
    (directory / f"{name}.up.sql").write_text(up)
    (directory / f"{name}.down.sql").write_text(down)


async def ask(database: ClonedDatabase, sql: str, *args: object) -> object:
    connection = await asyncpg.connect(database.admin_dsn)
    try:
        return await connection.fetchval(sql, *args)
    finally:
        await connection.close()


async def objects(database: ClonedDatabase) -> int:
    value = await ask(
        database,
        "SELECT (SELECT count(*) FROM pg_class"
        "         WHERE relnamespace = 'session'::regnamespace AND relkind IN ('r', 'v', 'S'))"
        " + (SELECT count(*) FROM pg_proc WHERE pronamespace = 'session'::regnamespace)",
    )
    return int(str(value))


async def test_up_down_and_up_again(database: ClonedDatabase, directory: Path) -> None:
    add(directory, "0002_view", "CREATE VIEW session.shown AS SELECT 1 AS one;", "DROP VIEW session.shown;")
    runner, dsn = Migrations("session", directory), database.dsn("session", "owner")
    assert [status.apply_time for status in await runner.status(dsn)] == [None, None]
    assert await runner.up(dsn) == ["0001_notes", "0002_view", "functions.sql"]
    assert await runner.up(dsn) == []
    assert all(status.apply_time for status in await runner.status(dsn))
    full = await objects(database)
    assert await runner.down(dsn) == ["0002_view"]
    assert await runner.down(dsn, steps=5) == ["0001_notes"]
    assert await objects(database) == 1  # schema_migrations, empty
    assert await ask(database, "SELECT count(*) FROM session.schema_migrations") == 0
    assert await runner.up(dsn) == ["0001_notes", "0002_view", "functions.sql"]
    assert await objects(database) == full


async def test_everything_belongs_to_the_owner(database: ClonedDatabase, directory: Path) -> None:
    await Migrations("session", directory).up(database.dsn("session", "owner"))
    foreign = (
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'session'::regnamespace"
        "   AND relowner <> 'minion_session_owner'::regrole"
    )
    assert await ask(database, foreign) == 0


async def test_functions_are_applied_again_when_they_change(database: ClonedDatabase, directory: Path) -> None:
    dsn = database.dsn("session", "owner")
    await Migrations("session", directory).up(dsn)
    (directory / "functions_more.sql").write_text(
        "CREATE OR REPLACE FUNCTION session.one() RETURNS int LANGUAGE sql AS 'SELECT 1';"
    )
    assert await Migrations("session", directory).up(dsn) == ["functions_more.sql"]
    (directory / "functions_more.sql").write_text(
        "CREATE OR REPLACE FUNCTION session.one() RETURNS int LANGUAGE sql AS 'SELECT 11';"
    )
    assert await Migrations("session", directory).up(dsn) == ["functions_more.sql"]
    async with await database.connect("session") as app:
        assert await app.fetch_value("SELECT session.one()") == 11


async def test_the_app_role_may_execute_functions_and_others_may_not(database: ClonedDatabase, directory: Path) -> None:
    await Migrations("session", directory).up(database.dsn("session", "owner"))
    signature = "session.purge_requests(interval, integer)"
    for role, allowed in (("minion_session_app", True), ("minion_memory_app", False), ("public", False)):
        assert await ask(database, "SELECT has_function_privilege($1, $2, 'EXECUTE')", role, signature) == allowed


async def test_a_migration_that_fails_leaves_nothing(database: ClonedDatabase, directory: Path) -> None:
    add(directory, "0002_broken", "CREATE TABLE session.half (); SELECT 1 / 0;")
    with pytest.raises(MigrationError, match=r"0002_broken failed.*division by zero"):
        await Migrations("session", directory).up(database.dsn("session", "owner"))
    assert await ask(
        database, "SELECT to_regclass('session.half') IS NULL AND to_regclass('session.notes') IS NOT NULL"
    )
    add(directory, "0002_broken", "SELECT nothing FROM nowhere;")
    with pytest.raises(MigrationError, match="0002_broken failed at character"):
        await Migrations("session", directory).up(database.dsn("session", "owner"))


async def test_a_changed_migration_is_refused(database: ClonedDatabase, directory: Path) -> None:
    dsn = database.dsn("session", "owner")
    await Migrations("session", directory).up(dsn)
    path = directory / "0001_notes.up.sql"
    path.write_text(path.read_text() + "-- changed")
    with pytest.raises(MigrationError, match="0001_notes was changed after it was applied"):
        await Migrations("session", directory).up(dsn)


async def test_a_database_of_a_newer_release_is_left_alone(database: ClonedDatabase, directory: Path) -> None:
    dsn = database.dsn("session", "owner")
    add(directory, "0002_newer", "CREATE TABLE session.newer ();", "DROP TABLE session.newer;")
    await Migrations("session", directory).up(dsn)
    for way in ("up", "down"):
        (directory / f"0002_newer.{way}.sql").unlink()
    (directory / "functions.sql").write_text("CREATE FUNCTION session.old() RETURNS int LANGUAGE sql AS 'SELECT 0';")
    older = Migrations("session", directory)
    assert await older.up(dsn) == []
    assert [status.name for status in await older.status(dsn)] == ["0001_notes", "0002_newer"]
    with pytest.raises(MigrationError, match="0002_newer is of a newer release"):
        await older.down(dsn)


async def test_a_release_knows_what_a_schema_lacks(database: ClonedDatabase, directory: Path) -> None:
    dsn = database.dsn("session", "owner")
    app = database.dsn("session")
    release = Migrations("session", directory)
    assert (await release.state(dsn)).missing == ["0001_notes", "functions.sql"]
    await release.up(dsn)
    assert (await release.state(app)).fits
    assert str(await release.state(app)) == "up to date"
    add(directory, "0002_more", "CREATE TABLE session.more ();", "DROP TABLE session.more;")
    (directory / "functions.sql").write_text((directory / "functions.sql").read_text() + "-- changed")
    (directory / "functions_more.sql").write_text(function("more", 1))
    later = Migrations("session", directory)
    state = await later.state(app)
    assert (state.latest, state.missing) == ("0001_notes", ["0002_more", "functions_more.sql"])
    assert (state.outdated, state.foreign) == (["functions.sql"], [])
    assert str(state) == (
        "not applied: 0002_more, functions_more.sql; applied as an earlier release has it: functions.sql"
    )
    await later.up(dsn)
    assert (await later.state(app)).fits
    # The release before goes on: what is later is no fault.
    assert (await release.state(app)).fits
    await later.down(dsn)
    assert (await release.state(app)).missing == ["functions.sql"]
    assert (await later.state(app)).missing == ["0002_more", "functions.sql", "functions_more.sql"]


async def test_functions_alone_tell_an_earlier_release_from_a_later_one(
    database: ClonedDatabase, directory: Path
) -> None:
    dsn = database.dsn("session", "owner")
    releases = [release(directory, number) for number in range(3)]

    async def fitting() -> list[bool]:
        return [(await one.state(dsn)).fits for one in releases]

    # The database never had the text of the release before, which goes on all the same, and lets be what is there.
    await releases[1].up(dsn)
    assert await fitting() == [True, True, False]
    assert await releases[0].up(dsn) == []
    assert (await releases[2].state(dsn)).outdated == ["functions_one.sql"]
    assert await releases[2].up(dsn) == ["functions_one.sql"]
    assert await fitting() == [True, True, True]
    assert await releases[0].up(dsn) == await releases[1].up(dsn) == []
    assert await ask(database, "SELECT session.one()") == 2
    assert await refusal(database, releases[0]) is None


async def test_functions_of_a_schema_that_lacks_migrations_are_earlier_ones(
    database: ClonedDatabase, directory: Path
) -> None:
    dsn = database.dsn("session", "owner")
    (directory / "functions_one.sql").write_text(function("one", 7))
    await Migrations("session", directory).up(dsn)
    add(directory, "0002_more", "CREATE TABLE session.more ();", "DROP TABLE session.more;")
    later = release(directory, 8)
    state = await later.state(dsn)
    assert (state.missing, state.outdated) == (["0002_more"], ["functions_one.sql"])
    assert await later.up(dsn) == ["0002_more", "functions_one.sql"]


async def test_functions_that_no_release_has_yet_are_applied(database: ClonedDatabase, directory: Path) -> None:
    dsn = database.dsn("session", "owner")
    await release(directory, 0).up(dsn)
    for number in (7, 8, 7):
        (directory / "functions_one.sql").write_text(function("one", number))
        assert await Migrations("session", directory).up(dsn) == ["functions_one.sql"]
    # The release has it now.
    assert await release(directory, 7).up(dsn) == []


@pytest.mark.parametrize("line", ["functions.sql", "functions.sql 0x", "functions.sql 00 00"])
def test_a_history_out_of_order_is_refused(line: str, directory: Path) -> None:
    (directory / "functions.history").write_text(f"{line}\n")
    with pytest.raises(MigrationError, match="no file's name and checksum"):
        Migrations("session", directory)


async def test_a_service_starts_on_a_schema_of_its_release_or_a_later_one_alone(
    database: ClonedDatabase, directory: Path
) -> None:
    dsn = database.dsn("session", "owner")
    release = Migrations("session", directory)
    told = "was never migrated: run `minion migrate`."
    assert await refusal(database, release) == ("SCHEMA_NOT_MIGRATED", told)
    await release.up(dsn)
    assert await refusal(database, release) is None
    add(directory, "0002_more", "CREATE TABLE session.more ();", "DROP TABLE session.more;")
    later = Migrations("session", directory)
    told = "is older than this release (not applied: 0002_more): run `minion migrate`."
    assert await refusal(database, later) == ("SCHEMA_OUTDATED", told)
    await later.up(dsn)
    assert await refusal(database, later) is None
    assert await refusal(database, release) is None
    path = directory / "0001_notes.up.sql"
    path.write_text(path.read_text() + "-- changed")
    refused = await refusal(database, Migrations("session", directory))
    assert refused is not None
    assert refused[0] == "SCHEMA_FOREIGN"
    assert refused[1].startswith(
        "is of no release that this one follows (applied with another text: 0001_notes): restore it, or"
    )


async def refusal(database: ClonedDatabase, migrations: Migrations) -> tuple[str, str] | None:
    """Why a service with these migrations would not start: the reason, and the words after the schema's place."""
    settings = ServiceDatabaseSettings.load({}, database_url=SecretStr(database.dsn("session")), pool_min_size=1)
    telemetry = Telemetry.start("session", settings)
    try:
        async with await Database.connect(
            database.dsn("session"), schema="session", settings=settings, telemetry=telemetry, migrations=migrations
        ):
            return None
    except FailedPrecondition as fault:
        return fault.reason, fault.message.partition(f"{database.name} ")[2]
    finally:
        telemetry.shutdown()


def release(directory: Path, number: int) -> Migrations:
    """A release that has a function in a form of its own, after those before it."""
    text = function("one", number)
    (directory / "functions_one.sql").write_text(text)
    with (directory / "functions.history").open("a") as history:
        history.write(f"functions_one.sql {hashlib.sha256(text.encode()).hexdigest()}\n")
    return Migrations("session", directory)


def function(name: str, number: int) -> str:
    """A function that a release has in its own form."""
    return f"CREATE OR REPLACE FUNCTION session.{name}() RETURNS int LANGUAGE sql AS 'SELECT {number}';"


async def test_runners_at_once_take_turns(database: ClonedDatabase, directory: Path) -> None:
    dsn = database.dsn("session", "owner")
    add(directory, "0002_slow", "SELECT pg_sleep(0.3); CREATE TABLE session.slow ();", "DROP TABLE session.slow;")
    results = await asyncio.gather(*(Migrations("session", directory).up(dsn) for _ in range(4)))
    assert sorted(map(len, results)) == [0, 0, 0, 3]


async def test_a_runner_that_waits_too_long_says_so(database: ClonedDatabase, directory: Path) -> None:
    dsn = database.dsn("session", "owner")
    runner = Migrations("session", directory)
    async with runner._turn(dsn, 1):
        with pytest.raises(MigrationError, match="another runner is still at work"):
            await runner.up(dsn, patience=0.1)


async def test_an_index_is_built_concurrently_while_another_runner_waits(
    database: ClonedDatabase, directory: Path
) -> None:
    add(
        directory,
        "0002_index",
        "-- no-transaction\n"
        "DROP INDEX CONCURRENTLY IF EXISTS session.notes_time;\n"
        "CREATE INDEX CONCURRENTLY notes_time ON session.notes (tenant_id, create_time);\n",
        "-- no-transaction\nDROP INDEX CONCURRENTLY session.notes_time;\n",
    )
    runner, dsn = Migrations("session", directory), database.dsn("session", "owner")
    async with asyncio.timeout(60):
        await asyncio.gather(runner.up(dsn), runner.up(dsn))
    assert await ask(database, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'session.notes_time'::regclass")
    assert await runner.down(dsn) == ["0002_index"]


async def test_a_table_is_filled_in_batches_outside_of_a_transaction(database: ClonedDatabase, directory: Path) -> None:
    add(
        directory,
        "0002_fill",
        "-- no-transaction\n"
        "-- Each row in a transaction of its own; see $$ below.\n"
        "CREATE TABLE session.filled (number int, xid xid8 DEFAULT pg_current_xact_id());\n"
        "DO $$\n"
        "DECLARE\n    number int;\n"
        "BEGIN\n"
        "    FOR number IN SELECT n FROM generate_series(1, 3) n LOOP\n"
        "        INSERT INTO session.filled (number) VALUES (number);\n"
        "        COMMIT;\n"
        "    END LOOP;\n"
        "END $$;\n"
        "CREATE INDEX CONCURRENTLY filled_number ON session.filled (number);",
        "DROP TABLE session.filled;",
    )
    await Migrations("session", directory).up(database.dsn("session", "owner"))
    assert await ask(database, "SELECT count(DISTINCT xid) FROM session.filled") == 3
    assert await ask(database, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'session.filled_number'::regclass")


async def test_a_migration_runs_under_limits(database: ClonedDatabase, directory: Path) -> None:
    add(
        directory,
        "0002_limits",
        "CREATE TABLE session.limits AS"
        " SELECT current_setting('lock_timeout') AS lock, current_setting('statement_timeout') AS statement;",
    )
    await Migrations("session", directory).up(database.dsn("session", "owner"))
    assert await ask(database, "SELECT lock || ' ' || statement FROM session.limits") == "3s 10min"


async def test_a_busy_table_is_waited_for_without_queueing_its_readers(
    database: ClonedDatabase, directory: Path
) -> None:
    dsn = database.dsn("session", "owner")
    await Migrations("session", directory).up(dsn)
    add(directory, "0002_column", "SET LOCAL lock_timeout = '200ms'; ALTER TABLE session.notes ADD COLUMN extra int;")
    holder = await asyncpg.connect(database.admin_dsn)
    try:
        await holder.execute("BEGIN; SELECT 1 FROM session.notes")
        migrating = asyncio.create_task(Migrations("session", directory).up(dsn))
        reader = await asyncpg.connect(database.admin_dsn)
        try:
            waiting = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'session.notes'::regclass"
            async with asyncio.timeout(60):
                while not await reader.fetchval(waiting):
                    assert not migrating.done(), "it never stood in the queue"
                # A reader that queues behind it gets its turn while the table is still held: the migration stood back.
                await reader.fetchval("SELECT count(*) FROM session.notes")
        finally:
            await reader.close()
        await holder.execute("COMMIT")
        assert await migrating == ["0002_column"]
    finally:
        await holder.close()


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (["0001_a.up.sql"], "needs a way up and a way down"),
        (["0001_a.up.sql", "0001_a.down.sql", "0003_c.up.sql", "0003_c.down.sql"], "have a gap"),
        (["0001_a.up.sql", "0001_b.down.sql"], "have the same number"),
        (["1_a.up.sql"], "is neither"),
    ],
)
def test_a_folder_out_of_order_is_refused(tmp_path: Path, files: list[str], complaint: str) -> None:
    for name in files:
        (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(MigrationError, match=complaint):
        Migrations("session", tmp_path)
