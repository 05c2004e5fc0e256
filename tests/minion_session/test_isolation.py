"""What the service's role may see and do, and that what it asks is found by an index, at a cost that doesn't grow."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import orjson
import pytest
import pytest_asyncio
from minion.session.v1 import session_service_pb2 as pb
from minion_grpc import wire
from minion_postgres import Database, queries
from minion_postgres.database import Transaction
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_session.made import append, open_session, source, turn
from tests.minion_session.stage import Stub

TABLES = ("sessions", "messages", "workspace_entries", "idempotency_keys", "changes", "told_activity")
# What holds nothing of a tenant, and is reached through functions of the owner alone.
CLOSED_TABLES = ("activity_rounds",)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def app(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The database as the service sees it."""
    async with await postgres.connect("session") as database:
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def session_id(session: Stub, app: Database, owner: Database, tenant_id: UUID) -> UUID:
    """A session with something in each table."""
    session_id = await open_session(session, request_id=str(uuid7()))
    await session.AppendMessages(append(session_id, "hello"))
    change = pb.WorkspaceChange(key="a", value=wire.to_value(1))
    await session.SetWorkspaceEntries(pb.SetWorkspaceEntriesRequest(session_id=session_id, changes=[change]))
    await app.execute("SELECT session.tell_active($1, $2)", tenant_id, [UUID(session_id)])
    # One change each of its creation and of its activity, of which the latter is not counted below.
    await owner.execute("DELETE FROM session.changes WHERE tenant_id = $1 AND kind = 'active'", tenant_id)
    return UUID(session_id)


@pytest.mark.parametrize("table", TABLES)
async def test_without_a_tenant_there_are_no_rows(app: Database, owner: Database, session_id: UUID, table: str) -> None:
    count = f"SELECT count(*) FROM session.{table}"  # noqa: S608 - a name of ours
    assert await owner.fetch_value(count) > 0
    assert await app.fetch_value(count) == 0
    async with app.transaction(uuid7()) as transaction:
        assert await transaction.fetch_value(count) == 0


@pytest.mark.parametrize("table", TABLES)
async def test_a_tenant_sees_its_own_rows(app: Database, session_id: UUID, tenant_id: UUID, table: str) -> None:
    async with app.transaction(tenant_id) as transaction:
        assert await transaction.fetch_value(f"SELECT count(*) FROM session.{table}") == 1  # noqa: S608 - as above


async def test_nothing_is_written_for_another_tenant(app: Database, tenant_id: UUID) -> None:
    insert = "INSERT INTO session.sessions (tenant_id, session_id, agent_id, user_id) VALUES ($1, $2, $2, 'eve')"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with app.transaction(tenant_id) as transaction:
            await transaction.execute(insert, uuid7(), uuid7())
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(insert, tenant_id, uuid7())


@pytest.mark.parametrize("schema", ["registry", "memory", "activity", "gateway"])
async def test_other_schemas_are_closed(app: Database, schema: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.fetch(f"SELECT * FROM {schema}.schema_migrations")  # noqa: S608 - a name of ours
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(f"CREATE TABLE {schema}.mine (a int)")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE session.messages SET author = 'eve'",
        "DELETE FROM session.messages",
        "DELETE FROM session.sessions",
        "DELETE FROM session.changes",
        "UPDATE session.changes SET kind = 'created'",
        "SELECT * FROM session.activity_rounds",
        "TRUNCATE session.messages",
        "CREATE TABLE session.mine (a int)",
        "CREATE TEMPORARY TABLE mine (a int)",
        "ALTER TABLE session.messages DISABLE ROW LEVEL SECURITY",
        "SET ROLE minion_session_owner",
    ],
)
async def test_the_service_may_not(app: Database, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(statement)


async def test_every_tenant_table_is_forced_to_be_safe(owner: Database) -> None:
    rows = await owner.fetch(
        """
        SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity, a.attname AS first_key
          FROM pg_class c
          JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
         WHERE c.relnamespace = 'session'::regnamespace AND c.relkind = 'r' AND c.relname <> 'schema_migrations'
           AND c.relname <> ALL ($1)
        """,
        list(CLOSED_TABLES),
    )
    assert {row["relname"] for row in rows} == set(TABLES)
    for row in rows:
        assert (row["relrowsecurity"], row["relforcerowsecurity"], row["first_key"]) == (True, True, "tenant_id")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crowd(owner: Database) -> UUID:
    """A tenant with sessions and entries enough for the planner to think about, which it is told of."""
    tenant_id = uuid7()
    await owner.execute(
        """
        INSERT INTO session.sessions (tenant_id, session_id, agent_id, user_id, create_time)
        SELECT $1, lpad(to_hex(number), 32, '0')::uuid, lpad(to_hex(number % 50), 32, '0')::uuid, 'ada' || number % 50,
               now() - number * interval '1 minute'
          FROM generate_series(1, 5000) AS number
        """,
        tenant_id,
    )
    await owner.execute(
        """
        INSERT INTO session.workspace_entries (tenant_id, session_id, byte_count, key, value)
        SELECT $1, lpad(to_hex(1 + number / 100), 32, '0')::uuid, 10, number::text, '1'
          FROM generate_series(1, 5000) AS number
        """,
        tenant_id,
    )
    # Nearly all are active, and of each other status there is one of the oldest, of agent 7.
    rare = "UPDATE session.sessions SET {} WHERE tenant_id = $1 AND session_id = $2"
    changes = ("close_time = now()", "expire_time = now()", "expire_time = now(), archive_time = now()")
    for place, change in enumerate(changes):
        await owner.execute(rare.format(change), tenant_id, UUID(int=4_907 + 50 * place))
    await owner.execute("VACUUM ANALYZE session.sessions, session.workspace_entries")
    return tenant_id


async def _plan(transaction: Transaction, sql: str, *args: object) -> str:
    return "\n".join(row[0] for row in await transaction.fetch(f"EXPLAIN {sql}", *args))


_SESSIONS = queries.load("minion_session.sessions")
_LISTING = _SESSIONS.list_sessions
_WORKSPACE = queries.load("minion_session.workspace")


_STATUSES = ("active", "closed", "expired", "archived")
_LISTS: list[tuple[str | None, str | None, int | None]] = [
    (None, None, None),
    (None, "ada7", None),
    (None, None, 7),
    *[(status, None, None) for status in _STATUSES],
    *[(status, None, 7) for status in _STATUSES],
]


@pytest.mark.parametrize(("status", "user", "agent"), _LISTS)
@pytest.mark.parametrize("generic", [False, True])
async def test_sessions_are_listed_at_the_cost_of_the_page(
    app: Database, crowd: UUID, status: str | None, user: str | None, agent: int | None, generic: bool
) -> None:
    async with app.transaction(crowd) as transaction:
        # Prepared statements are planned without their values in the long run.
        mode = "force_generic_plan" if generic else "force_custom_plan"
        await transaction.execute(f"SET LOCAL plan_cache_mode = {mode}")
        place = (crowd, datetime(2100, 1, 1, tzinfo=UTC), UUID(int=1), status, user, UUID(int=agent) if agent else None)
        pages = []
        for _ in range(3):
            (row,) = await transaction.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) {_LISTING}", *place, 11)
            plan = orjson.loads(row[0]) if isinstance(row[0], str) else row[0]
            pages.append(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])
    # The crowd's sessions take hundreds of pages.
    assert min(pages) < 60


@pytest.mark.parametrize(("query", "extra"), [("get_workspace", ()), ("get_workspace_entries", (["a"],))])
async def test_working_memory_is_read_by_its_key(
    app: Database, crowd: UUID, query: str, extra: tuple[object, ...]
) -> None:
    async with app.transaction(crowd) as transaction:
        plan = await _plan(transaction, _WORKSPACE[query], crowd, UUID(int=1), *extra)
    assert "workspace_entries_pkey" in plan
    assert "sessions_pkey" in plan
    assert "Seq Scan" not in plan


@pytest.mark.parametrize("query", ["lock_session", "close_session", "archive_session"])
async def test_what_changes_a_session_finds_it_by_its_key(app: Database, crowd: UUID, query: str) -> None:
    async with app.transaction(crowd) as transaction:
        plan = await _plan(transaction, _SESSIONS[query], crowd, UUID(int=1))
    assert "Index Scan using sessions_pkey" in plan
    assert "Seq Scan" not in plan


async def test_active_sessions_are_counted_by_their_index(owner: Database, crowd: UUID) -> None:
    assert crowd
    counting = "SELECT FROM session.sessions s WHERE s.stage = 'open' AND s.expire_time > now() LIMIT $1"
    async with owner.transaction(None) as transaction:
        plan = await _plan(transaction, counting, 100_000)
    assert "sessions_open" in plan


LONG, SHORT = 20_000, 120


async def _fill(owner: Database, tenant_id: UUID, session_id: UUID, count: int) -> None:
    await owner.execute(
        """
        INSERT INTO session.messages (tenant_id, session_id, sequence, create_time, token_count, byte_count, role,
                                      author, parts)
        SELECT $1, $2, number, now(), 10, 60, 'user', '', jsonb_build_array(jsonb_build_object('text', repeat('x', 50)))
          FROM generate_series(1, $3::int) AS number
        """,
        tenant_id,
        session_id,
        count,
    )
    await owner.execute(
        "UPDATE session.sessions SET last_sequence = $3 WHERE tenant_id = $1 AND session_id = $2",
        tenant_id,
        session_id,
        count,
    )


_HOT = {
    "get": "SELECT * FROM session.get_session($1, $2)",
    "append": "SELECT * FROM session.append_messages($1, $2, NULL, NULL, NULL, $3, 7, false, '{user}', '{x}',"
    """ '{"[{\\"text\\": \\"hello\\"}]"}', '{1}', '{30}', '{NULL}')""",
    "begin": "SELECT * FROM session.begin_turn($1, $2, $3, 8, '', '[{\"text\": \"hello\"}]', 1, 30, NULL,"
    " interval '1 minute', 8000, 50, 3000000)",
    "newest": "SELECT * FROM session.list_messages($1, $2, NULL, true, 50, 3000000)",
    "oldest": "SELECT * FROM session.list_messages($1, $2, NULL, false, 50, 3000000)",
    # A watch's look when there is nothing new.
    "tail": "SELECT * FROM session.list_messages($1, $2, 1000000, false, 500, 3000000)",
}


async def _pages_read(app: Database, tenant_id: UUID, session_id: UUID, operation: str) -> int:
    """Runs a hot function and takes it back; gives how many pages it looked at."""
    sql = _HOT[operation]
    args: list[object] = [tenant_id, session_id, *([uuid7()] if "$3" in sql else [])]
    pages = []
    # The first calls of a connection read catalogues and make plans.
    async with app.transaction(tenant_id) as transaction:
        for _ in range(7):
            await transaction.execute("SAVEPOINT before")
            (row,) = await transaction.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) {sql}", *args)
            await transaction.execute("ROLLBACK TO SAVEPOINT before")
            plan = orjson.loads(row[0]) if isinstance(row[0], str) else row[0]
            top = plan[0]["Plan"]
            pages.append(top["Shared Hit Blocks"] + top["Shared Read Blocks"])
    return int(min(pages))


async def test_cost_does_not_grow_with_the_length_of_a_session(
    app: Database, owner: Database, session: Stub, tenant_id: UUID
) -> None:
    short, long = UUID(await open_session(session)), UUID(await open_session(session))
    await _fill(owner, tenant_id, short, SHORT)
    await _fill(owner, tenant_id, long, LONG)
    await owner.execute("ANALYZE session.messages")
    for operation in _HOT:
        few = await _pages_read(app, tenant_id, short, operation)
        many = await _pages_read(app, tenant_id, long, operation)
        # The key's tree is one level higher.
        assert many <= few + 4, f"{operation}: {few} pages at {SHORT} messages, {many} at {LONG}"


async def test_a_message_takes_little_beside_its_content(owner: Database, session: Stub, tenant_id: UUID) -> None:
    """At most 700 bytes above its content, indexes included (a figure of its own measures it at size)."""
    session_id = UUID(await open_session(session))
    before = await owner.fetch_value("SELECT pg_total_relation_size('session.messages')")
    count, content = 5_000, 200
    await owner.execute(
        """
        INSERT INTO session.messages (tenant_id, session_id, run_id, sequence, create_time, step_sequence, step_place,
                                      token_count, byte_count, role, author, parts)
        SELECT $1, $2, $2, number, now(), number, 0, 50, $4, 'assistant', 'helper',
               jsonb_build_array(jsonb_build_object('text', repeat('x', $4::int)))
          FROM generate_series(1, $3::int) AS number
        """,
        tenant_id,
        session_id,
        count,
        content,
    )
    after = await owner.fetch_value("SELECT pg_total_relation_size('session.messages')")
    assert (after - before) / count - content < 350


async def test_the_hold_is_released_in_the_appends_own_transaction(session: Stub, owner: Database) -> None:
    session_id = await open_session(session)
    request = turn(session_id)
    await session.BeginTurn(request)
    last = append(session_id, "answer", source=source(request.source.run_id, 2), release_hold=True)
    await session.AppendMessages(last)
    row = await owner.fetch_one(
        """
        SELECT s.held_by_run, s.xmin = m.xmin AS together
          FROM session.sessions s JOIN session.messages m USING (tenant_id, session_id)
         WHERE s.session_id = $1 AND m.sequence = s.last_sequence
        """,
        UUID(session_id),
    )
    assert row is not None
    assert (row["held_by_run"], row["together"]) == (None, True)
