"""The pool: tenants, transactions, faults in the domain's words, spans."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from minion_errors import Aborted, DeadlineExceeded, FailedPrecondition, NotFound, Unavailable
from minion_postgres import SCHEMAS, Database, Query, roles
from minion_postgres.driver import PooledConnection
from minion_telemetry import Telemetry
from minion_testing.fault_proxy import FaultProxy
from minion_testing.postgres import ClonedDatabase, ServiceDatabaseSettings
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr

COUNT = "SELECT count(*) FROM session.notes"
ADD = "INSERT INTO session.notes (tenant_id, note_id, body) VALUES ($1, $2, $3)"


async def add(database: Database, tenant_id: UUID, body: object = "text") -> UUID:
    note_id = uuid4()
    async with database.transaction(tenant_id) as transaction:
        await transaction.execute(ADD, tenant_id, note_id, body)
    return note_id


async def count(database: Database, tenant_id: UUID | None) -> int:
    async with database.transaction(tenant_id) as transaction:
        return int(await transaction.fetch_value(COUNT))


async def test_a_transaction_sees_its_own_tenant_alone(session_app: Database) -> None:
    mine, other = uuid4(), uuid4()
    await add(session_app, mine)
    await add(session_app, other)
    assert await count(session_app, mine) == 1
    assert await count(session_app, uuid4()) == 0


async def test_without_a_tenant_the_app_role_sees_nothing(session_app: Database) -> None:
    await add(session_app, uuid4())
    assert await session_app.fetch_value(COUNT) == 0
    assert await count(session_app, None) == 0


async def test_the_tenant_does_not_outlive_its_transaction(notes: ClonedDatabase) -> None:
    async with await notes.connect("session", pool_max_size=1, pool_min_size=1) as database:
        await add(database, uuid4())
        assert await database.fetch_value(COUNT) == 0
        assert not await database.fetch_value("SELECT nullif(current_setting('minion.tenant', true), '')")


async def test_a_foreign_tenants_row_can_not_be_written(session_app: Database) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with session_app.transaction(uuid4()) as transaction:
            await transaction.execute(ADD, uuid4(), uuid4(), {})


async def test_the_owner_sees_all_tenants(session_app: Database, session_owner: Database) -> None:
    await add(session_app, uuid4())
    await add(session_app, uuid4())
    assert await session_owner.fetch_value("SELECT count(DISTINCT tenant_id) FROM session.notes") >= 2


@pytest.mark.parametrize("service", SCHEMAS)
async def test_roles_are_refused_on_every_other_schema(notes: ClonedDatabase, service: str) -> None:
    async with await notes.connect(service) as app, await notes.connect(service, "owner") as owner:
        for database, role in ((app, roles(service).app), (owner, roles(service).owner)):
            rights = await database.fetch_one(
                "SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb AS strong, current_user AS name"
                "  FROM pg_roles WHERE rolname = current_user"
            )
            assert rights is not None
            assert (rights["name"], rights["strong"]) == (role, False)
            for schema in SCHEMAS:
                usable = await database.fetch_value("SELECT has_schema_privilege($1, 'USAGE')", schema)
                assert usable == (schema == service), (role, schema)
            if service != "session":
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await database.fetch(COUNT)


async def test_the_app_role_makes_no_objects(session_app: Database) -> None:
    for statement in (
        "CREATE TABLE session.mine ()",
        "CREATE TABLE public.mine ()",
        "CREATE TEMPORARY TABLE mine ()",
        "CREATE SCHEMA mine",
        "ALTER TABLE session.notes DISABLE ROW LEVEL SECURITY",
        "SET ROLE minion_session_owner",
        "TRUNCATE session.notes",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await session_app.execute(statement)


async def test_json_goes_in_and_out_as_python_objects(session_app: Database) -> None:
    tenant_id, body = uuid4(), {"parts": [1, 2.5, None, True, "ü"], "nested": {"a": []}}
    note_id = await add(session_app, tenant_id, body)
    async with session_app.transaction(tenant_id) as transaction:
        row = await transaction.fetch_one(
            "SELECT body, body::json AS text FROM session.notes WHERE note_id = $1", note_id
        )
    assert row is not None
    assert row["body"] == row["text"] == body


async def test_updated_at_moves_by_itself(session_app: Database) -> None:
    tenant_id = uuid4()
    note_id = await add(session_app, tenant_id)
    async with session_app.transaction(tenant_id) as transaction:
        assert await transaction.execute("UPDATE session.notes SET body = '2' WHERE note_id = $1", note_id) == 1
        row = await transaction.fetch_one("SELECT updated_at > create_time AS moved FROM session.notes")
    assert row is not None
    assert row["moved"]


async def test_an_exception_rolls_back(session_app: Database) -> None:
    tenant_id = uuid4()

    async def fail() -> None:
        async with session_app.transaction(tenant_id) as transaction:
            await transaction.execute(ADD, tenant_id, uuid4(), {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await count(session_app, tenant_id) == 0


async def test_a_cancelled_transaction_rolls_back_and_frees_its_connection(notes: ClonedDatabase) -> None:
    tenant_id = uuid4()
    async with await notes.connect("session", pool_max_size=1, pool_min_size=1) as database:
        entered = asyncio.Event()

        async def write() -> None:
            async with database.transaction(tenant_id) as transaction:
                await transaction.execute(ADD, tenant_id, uuid4(), {})
                entered.set()
                await transaction.fetch("SELECT pg_sleep(30)")

        task = asyncio.create_task(write())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await count(database, tenant_id) == 0


async def test_a_swallowed_failure_is_not_taken_for_a_commit(session_app: Database) -> None:
    tenant_id = uuid4()

    async def swallow() -> None:
        async with session_app.transaction(tenant_id) as transaction:
            await transaction.execute(ADD, tenant_id, uuid4(), {})
            with pytest.raises(asyncpg.DivisionByZeroError):
                await transaction.fetch("SELECT 1 / 0")

    with pytest.raises(RuntimeError, match="nothing was committed"):
        await swallow()
    assert await count(session_app, tenant_id) == 0


async def test_a_transaction_that_idles_is_ended_by_the_server(notes: ClonedDatabase) -> None:
    async def idle(database: Database) -> None:
        async with database.transaction(uuid4()) as transaction:
            await asyncio.sleep(1.3)  # the wait is the subject: idle_in_transaction_session_timeout
            await transaction.fetch("SELECT 1")

    async with await notes.connect("session", transaction_idle_seconds=1.0) as database:
        with pytest.raises(Unavailable) as caught:
            await idle(database)
        assert caught.value.reason == "DATABASE_UNAVAILABLE"
        assert caught.value.metadata["outcome"] == "none"
        await database.ping()
    async with await notes.connect("session", transaction_idle_seconds=30.0) as database:
        await idle(database)


async def test_every_session_has_its_limits_and_its_name(notes: ClonedDatabase) -> None:
    # As the owner, whose role alone would allow more.
    async with await notes.connect(
        "session", "owner", statement_seconds=62.5, transaction_idle_seconds=1.5
    ) as database:
        names = ("idle_in_transaction_session_timeout", "statement_timeout", "application_name")
        assert [await database.fetch_value("SELECT current_setting($1)", name) for name in names] == [
            "1500ms",
            "62500ms",
            "minion-session",
        ]


async def test_a_statement_out_of_time_is_deadline_exceeded(notes: ClonedDatabase) -> None:
    async with await notes.connect("session") as database:
        with pytest.raises(DeadlineExceeded) as caught:  # noqa: PT012 - the limit is of its transaction
            async with database.transaction(None) as transaction:
                # Not the pool's: on a busy machine what opens the pool takes longer than that.
                await transaction.execute("SET LOCAL statement_timeout = '100ms'")
                await transaction.fetch("SELECT pg_sleep(50)")
        assert caught.value.reason == "DATABASE_TIMEOUT"
        await database.ping()


@pytest.mark.usefixtures("time_to_connect")
async def test_a_pool_that_is_used_up_is_unavailable(notes: ClonedDatabase) -> None:
    async with await notes.connect("session", pool_max_size=1, pool_min_size=1, pool_acquire_seconds=0.1) as database:
        held = database.transaction(None)
        await held.__aenter__()
        async with asyncio.timeout(30):
            with pytest.raises(Unavailable) as caught:
                await database.ping()
        await held.__aexit__(None, None, None)
    assert caught.value.metadata["outcome"] == "none"
    assert caught.value.retry_after is not None


async def test_a_lost_connection_is_unavailable_and_the_pool_recovers(notes: ClonedDatabase) -> None:
    port = notes.postgres.port
    async with FaultProxy("127.0.0.1", port) as proxy:
        dsn = notes.postgres.dsn(roles("session").app, "for tests alone", notes.name, tcp=True)
        dsn = dsn.replace(f":{port}/", f":{proxy.port}/") + "?sslmode=disable"
        async with await notes.connect("session", dsn=dsn) as database:
            await database.ping()
            running = asyncio.create_task(database.fetch("SELECT pg_sleep(50)"))
            await until(lambda: is_running(notes, "SELECT pg_sleep(50)"))
            proxy.cut()
            with pytest.raises(Unavailable) as caught:
                await running
            assert caught.value.metadata["outcome"] == "unknown"
            assert "for tests alone" not in str(caught.value)
            await database.ping()


async def test_a_connection_whose_driver_is_lost_is_used_no_more(notes: ClonedDatabase) -> None:
    # asyncpg raises this when the server's farewell meets a statement; when that is can't be arranged.
    async with await notes.connect("session", pool_max_size=1) as database:
        before = await database.fetch_value("SELECT pg_backend_pid()")
        with pytest.raises(Unavailable) as refusal:  # noqa: PT012 - the blocks are what is tested
            async with database.transaction(uuid4()) as transaction:
                with database.statement("SELECT 1", transaction._connection):
                    raise asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress")
        assert refusal.value.reason == "DATABASE_UNAVAILABLE"
        assert await database.fetch_value("SELECT pg_backend_pid()") != before


async def test_a_driver_that_is_lost_while_rolling_back_hides_no_error(
    notes: ClonedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As above, where the farewell (the transaction idled for too long) meets the ROLLBACK of somebody's own error.
    execute = PooledConnection.execute

    async def lost(connection: PooledConnection, query: str, *args: object, **options: Any) -> str:
        if query == "ROLLBACK":
            raise asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress")
        return await execute(connection, query, *args, **options)

    monkeypatch.setattr(PooledConnection, "execute", lost)
    async with await notes.connect("session", pool_max_size=1) as database:
        before = await database.fetch_value("SELECT pg_backend_pid()")
        with pytest.raises(NotFound):
            async with database.transaction(uuid4()):
                raise NotFound("There is no such note.", reason="NOTE_NOT_FOUND")
        assert await database.fetch_value("SELECT pg_backend_pid()") != before


async def test_a_database_that_is_down_is_a_clear_error_without_the_password() -> None:
    settings = ServiceDatabaseSettings.load({}, database_url=SecretStr("postgresql://h/x"))
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1/minion") as caught:
        await Database.connect(
            "postgresql://minion_session_app:hunter2@127.0.0.1:1/minion",
            schema="session",
            settings=settings,
            telemetry=Telemetry.start("session", settings),
        )
    assert "hunter2" not in str(caught.value)


async def test_a_wrong_password_and_a_missing_database_are_clear_errors(notes: ClonedDatabase) -> None:
    wrong = notes.postgres.dsn("minion_session_app", "wrong", notes.name)
    with pytest.raises(Unavailable, match="password authentication failed"):
        await notes.connect("session", dsn=wrong)
    absent = notes.postgres.dsn("minion_session_app", "for tests alone", "absent")
    with pytest.raises(Unavailable, match='"absent" does not exist'):
        await notes.connect("session", dsn=absent)


async def test_a_read_only_server_drops_the_pool(notes: ClonedDatabase) -> None:
    async with await notes.connect("session", pool_max_size=2, pool_min_size=2) as database:
        before = await both_backends(database)

        async def write() -> None:
            async with database.transaction(uuid4()) as transaction:
                await transaction.execute("SET TRANSACTION READ ONLY")
                await transaction.execute(ADD, uuid4(), uuid4(), {})

        with pytest.raises(Unavailable) as caught:
            await write()
        assert caught.value.metadata["outcome"] == "none"
        after = await both_backends(database)
        assert len(before) == len(after) == 2
        assert not before & after


async def test_a_deadlock_is_aborted(session_app: Database) -> None:
    tenant_id = uuid4()
    first, second = await add(session_app, tenant_id), await add(session_app, tenant_id)
    lock = "SELECT 1 FROM session.notes WHERE note_id = $1 FOR UPDATE"
    both = asyncio.Barrier(2)

    async def cross(one: UUID, other: UUID) -> None:
        async with session_app.transaction(tenant_id) as transaction:
            await transaction.fetch(lock, one)
            await both.wait()
            await transaction.fetch(lock, other)

    results = await asyncio.gather(cross(first, second), cross(second, first), return_exceptions=True)
    conflicts = [result for result in results if isinstance(result, Aborted)]
    assert [conflict.reason for conflict in conflicts] == ["TRANSACTION_CONFLICT"]


async def test_sql_raises_domain_errors(session_app: Database) -> None:
    raising = """DO $$ BEGIN
        RAISE EXCEPTION 'SESSION_NOT_ACTIVE' USING ERRCODE = 'MN412', DETAIL = 'The session is closed.',
            HINT = jsonb_build_object('session_id', 7)::text;
    END $$"""
    with pytest.raises(FailedPrecondition, match="The session is closed") as caught:
        await session_app.execute(raising)
    assert (caught.value.reason, caught.value.metadata) == ("SESSION_NOT_ACTIVE", {"session_id": "7"})


async def test_our_own_mistakes_are_not_taken_for_outages(session_app: Database) -> None:
    with pytest.raises(asyncpg.InterfaceError, match="expects 1 argument"):
        await session_app.fetch("SELECT $1::int")
    with pytest.raises(asyncpg.DataError):
        await session_app.fetch("SELECT $1::int", "one")


async def test_named_queries_are_spans_inside_a_trace_and_silent_outside(notes: ClonedDatabase) -> None:
    exporter = InMemorySpanExporter()
    settings = ServiceDatabaseSettings.load({}, database_url=SecretStr("postgresql://h/x"))
    telemetry = Telemetry.start("session", settings, span_exporters=[exporter])
    query = Query("SELECT $1::text", name="echo", description="Echoes.")
    async with await notes.connect("session", telemetry=telemetry) as database:
        await database.fetch(query, "outside")
        with telemetry.tracer.start_as_current_span("call"):
            await database.fetch(query, "inside")
            with pytest.raises(asyncpg.DivisionByZeroError):
                await database.fetch("SELECT 1 / 0")
    telemetry.shutdown()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {"call", "session.echo", "session.SELECT"}
    assert len(exporter.get_finished_spans()) == 3
    assert spans["session.echo"].parent is not None
    attributes = spans["session.SELECT"].attributes
    assert attributes is not None
    assert attributes["error.type"] == "22012"
    assert not any("inside" in str(value) for span in spans.values() for value in (span.attributes or {}).values())


async def both_backends(database: Database) -> set[int]:
    async with database.transaction(None) as one, database.transaction(None) as two:
        return {await held.fetch_value("SELECT pg_backend_pid()") for held in (one, two)}


async def administer(database: ClonedDatabase, sql: str, *args: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database.admin_dsn)
    try:
        return list(await connection.fetch(sql, *args))
    finally:
        await connection.close()


async def is_running(database: ClonedDatabase, sql: str) -> bool:
    found = "SELECT 1 FROM pg_stat_activity WHERE datname = $1 AND state = 'active' AND query = $2"
    return bool(await administer(database, found, database.name, sql))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - the condition is the server's, which rings no bell
            await asyncio.sleep(0.01)
