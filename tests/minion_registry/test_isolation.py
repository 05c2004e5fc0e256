"""What the service's role may see and do, and that what it asks is found by an index."""

import hashlib
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from minion_postgres import Database, queries
from minion_postgres.database import Transaction
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_registry.rollouts_stage import started
from tests.minion_registry.stage import Caller, struct

TABLES = (
    "tenants",
    "api_keys",
    "agents",
    "agent_revisions",
    "agent_labels",
    "agent_capabilities",
    "agent_metadata",
    "agent_words",
    "tools",
    "tool_versions",
    "tool_labels",
    "agent_tools",
    "idempotency_keys",
    "changes",
    "outbox",
    "rollouts",
)


# A value of metadata: the number 7 under the name m.
LEAF = hashlib.sha256(b'[["m"], 7]').digest()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def app(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The database as the service sees it."""
    async with await postgres.connect("registry") as database:
        yield database


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owner(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The database as migrations and maintenance see it."""
    async with await postgres.connect("registry", "owner") as database:
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def agent_id(tenant: Caller) -> UUID:
    """An agent, and with it a row in each table."""
    agent = await tenant.create(labels={"a": "b"}, capabilities=["c"], metadata=struct({"d": "e"}))
    tool = await tenant.register(labels={"a": "b"})
    await tenant.bind(agent.agent_id, tool.tool_id, request_id=str(uuid7()))
    await started(tenant)
    return UUID(agent.agent_id)


def counting(table: str) -> str:
    # The digests of keys can't be read at all.
    return f"SELECT count(tenant_id) FROM registry.{table}"  # noqa: S608 - a name of ours


async def test_every_table_is_looked_at(owner: Database) -> None:
    tables = await owner.fetch("SELECT tablename::text AS name FROM pg_tables WHERE schemaname = 'registry'")
    assert {row["name"] for row in tables} - {"schema_migrations"} == set(TABLES)


@pytest.mark.parametrize("table", TABLES)
async def test_without_a_tenant_there_are_no_rows(app: Database, owner: Database, agent_id: UUID, table: str) -> None:
    assert await owner.fetch_value(counting(table)) > 0
    assert await app.fetch_value(counting(table)) == 0
    async with app.transaction(uuid7()) as transaction:
        assert await transaction.fetch_value(counting(table)) == 0


@pytest.mark.parametrize("table", TABLES)
async def test_a_tenant_sees_its_own_rows(
    app: Database, owner: Database, tenant: Caller, agent_id: UUID, table: str
) -> None:
    own = await owner.fetch_value(f"{counting(table)} WHERE tenant_id = $1", tenant.tenant_id)
    async with app.transaction(tenant.tenant_id) as transaction:
        assert await transaction.fetch_value(counting(table)) == own > 0


@pytest.mark.parametrize("schema", ["session", "memory", "activity", "gateway"])
async def test_other_schemas_are_closed(app: Database, schema: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.fetch(f"SELECT * FROM {schema}.schema_migrations")  # noqa: S608 - a name of ours
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(f"CREATE TABLE {schema}.mine (a int)")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE registry.agent_revisions SET instructions = ''",
        "DELETE FROM registry.agent_revisions",
        "DELETE FROM registry.agents",
        "UPDATE registry.tool_versions SET description = ''",
        "DELETE FROM registry.tool_versions",
        "DELETE FROM registry.tools",
        "INSERT INTO registry.tenants (tenant_id, name, display_name) VALUES (gen_random_uuid(), 'mine', '')",
        "UPDATE registry.tenants SET name = 'mine'",
        "DELETE FROM registry.tenants",
        "SELECT digest FROM registry.api_keys",
        "SELECT * FROM registry.api_keys",
        "UPDATE registry.api_keys SET expire_time = NULL",
        "UPDATE registry.api_keys SET scopes = '{*}'",
        "UPDATE registry.tenants SET status = 'active', suspend_time = NULL",
        "DELETE FROM registry.api_keys",
        "UPDATE registry.changes SET kind = 'created'",
        "DELETE FROM registry.changes",
        "TRUNCATE registry.agents",
        "CREATE TABLE registry.mine (a int)",
        "CREATE TEMPORARY TABLE mine (a int)",
        "ALTER TABLE registry.agents DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE registry.agents DISABLE TRIGGER ALL",
        "SET ROLE minion_registry_owner",
    ],
)
async def test_the_service_may_not(app: Database, tenant: Caller, agent_id: UUID, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with app.transaction(tenant.tenant_id) as transaction:
            await transaction.execute(statement)


async def test_revisions_and_versions_never_change_whoever_asks(owner: Database, agent_id: UUID) -> None:
    for table in ("agent_revisions", "tool_versions"):
        with pytest.raises(asyncpg.RestrictViolationError):
            await owner.execute(f"UPDATE registry.{table} SET description = 'other'")  # noqa: S608 - a name of ours


async def test_nothing_is_written_for_another_tenant(app: Database, tenant: Caller, stranger: Caller) -> None:
    insert = "INSERT INTO registry.changes (tenant_id, resource_id, kind) VALUES ($1, $2, 'created')"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with app.transaction(tenant.tenant_id) as transaction:
            await transaction.execute(insert, stranger.tenant_id, uuid7())
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(insert, tenant.tenant_id, uuid7())


async def test_an_agent_is_deleted_from_its_own_tenant_alone(
    app: Database, tenant: Caller, stranger: Caller, agent_id: UUID
) -> None:
    delete = "SELECT registry.delete_agent($1)"
    assert await app.fetch_value(delete, agent_id) is False
    async with app.transaction(stranger.tenant_id) as transaction:
        assert await transaction.fetch_value(delete, agent_id) is False
    await tenant.activate(str(agent_id))
    async with app.transaction(tenant.tenant_id) as transaction:
        assert await transaction.fetch_value(delete, agent_id) is False
    assert await tenant.get(str(agent_id))


async def test_a_key_is_retired_in_its_own_tenant_alone_and_lives_no_longer_for_it(
    app: Database, owner: Database, tenant: Caller, stranger: Caller
) -> None:
    ends = "SELECT expire_time FROM registry.api_keys WHERE tenant_id = $1"
    [key] = await owner.fetch("SELECT api_key_id FROM registry.api_keys WHERE tenant_id = $1", tenant.tenant_id)
    retire = "SELECT registry.retire_api_key($1, $2)"
    assert await app.fetch_value(retire, key["api_key_id"], timedelta()) is False
    async with app.transaction(stranger.tenant_id) as transaction:
        assert await transaction.fetch_value(retire, key["api_key_id"], timedelta()) is False
    assert await owner.fetch_value(ends, tenant.tenant_id) is None
    async with app.transaction(tenant.tenant_id) as transaction:
        assert await transaction.fetch_value(retire, key["api_key_id"], timedelta(hours=1)) is True
    end = await owner.fetch_value(ends, tenant.tenant_id)
    async with app.transaction(tenant.tenant_id) as transaction:
        assert await transaction.fetch_value(retire, key["api_key_id"], timedelta(hours=2)) is True
    assert await owner.fetch_value(ends, tenant.tenant_id) == end is not None


@pytest.mark.parametrize(
    "change",
    [
        "status = 'suspended'",
        "status = 'suspended', suspend_time = now()",
        "status = 'suspended', suspend_reason = 'unpaid'",
        "suspend_time = now(), suspend_reason = 'unpaid'",
        "status = 'gone'",
    ],
)
async def test_a_suspension_has_a_time_and_a_reason_whoever_writes(
    owner: Database, tenant: Caller, change: str
) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await owner.execute(f"UPDATE registry.tenants SET {change} WHERE tenant_id = $1", tenant.tenant_id)  # noqa: S608


# What operators see of a tenant, through functions that they alone get to.
_TENANT = (
    "TABLE(tenant_id uuid, name text, display_name text, create_time timestamp with time zone,"
    " updated_at timestamp with time zone, status text, suspend_reason text, suspend_time timestamp with time zone)"
)


async def test_what_crosses_tenants_gives_ids_alone(owner: Database) -> None:
    rows = await owner.fetch(
        "SELECT proname, pg_get_function_result(oid) AS result FROM pg_proc"
        " WHERE pronamespace = 'registry'::regnamespace AND prosecdef"
    )
    assert {row["proname"]: row["result"] for row in rows} == {
        "create_tenant": "TABLE(tenant_id uuid, name text, display_name text, create_time timestamp with time zone)",
        "verify_credential": "TABLE(tenant_id uuid, api_key_id uuid, expire_time timestamp with time zone)",
        "verify_api_key": "TABLE(tenant_id uuid, api_key_id uuid, expire_time timestamp with time zone, scopes text[],"
        " tenant_status text)",
        "tenant_status": "text",
        "find_tenant": _TENANT,
        "list_tenants": _TENANT,
        "suspend_tenant": _TENANT,
        "resume_tenant": _TENANT,
        "retire_api_key": "boolean",
        "delete_agent": "boolean",
        "claim_rollouts": "TABLE(tenant_id uuid, rollout_id uuid)",
        "purge_requests": "bigint",
        "read_all_changes": "TABLE(tenant_id uuid, xid xid8, id bigint, resource_id uuid, kind text,"
        " create_time timestamp with time zone)",
        "purge_changes": "bigint",
        "claim_outbox": "TABLE(tenant_id uuid, activity_id uuid)",
        "outbox_lag": "TABLE(waiting bigint, seconds double precision)",
    }


async def test_nobody_else_may_call_the_functions(postgres: ClonedDatabase) -> None:
    connection = await asyncpg.connect(postgres.dsn("session"))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT * FROM registry.verify_credential($1)", bytes(32))
    finally:
        await connection.close()


async def test_updated_at_is_the_databases(tenant: Caller, owner: Database, agent_id: UUID) -> None:
    before = await tenant.get(str(agent_id))
    await owner.execute(
        "UPDATE registry.agents SET updated_at = '2000-01-01', version = version + 1 WHERE agent_id = $1", agent_id
    )
    after = await tenant.get(str(agent_id))
    assert after.update_time.ToMicroseconds() > before.update_time.ToMicroseconds()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crowd(owner: Database) -> UUID:
    """A tenant with agents, tools and bindings enough for the planner to think about, which it is told of."""
    tenant_id = uuid7()
    await owner.execute(
        "INSERT INTO registry.tenants (tenant_id, name, display_name) VALUES ($1, 'crowd', '')", tenant_id
    )
    for statement in (
        """
        INSERT INTO registry.agents (tenant_id, agent_id, name, display_name, description, behavior_type, instructions,
                                     llm, capabilities, behavior, metadata, labels, create_time)
        SELECT $1, lpad(to_hex(number), 32, '0')::uuid, 'a-' || number, '', '',
               CASE WHEN number % 100 = 0 THEN 'conversational' ELSE 'tool_use' END, '', '{}',
               ARRAY['c-' || number % 10], '{}', jsonb_build_object('m', number % 10),
               jsonb_build_object('k', (number % 10)::text),
               now() - number * interval '1 minute'
          FROM generate_series(1, 5000) AS number
        """,
        # A draft may be made, and nothing else: the few active ones go the way that all go.
        "UPDATE registry.agents SET status = 'active' WHERE tenant_id = $1 AND behavior_type <> 'tool_use'",
        """
        INSERT INTO registry.agent_labels (tenant_id, agent_id, key, value, agent_create_time)
        SELECT tenant_id, agent_id, 'k', labels ->> 'k', create_time FROM registry.agents WHERE tenant_id = $1
        """,
        """
        INSERT INTO registry.agent_capabilities (tenant_id, agent_id, capability, agent_create_time)
        SELECT tenant_id, agent_id, capabilities[1], create_time FROM registry.agents WHERE tenant_id = $1
        """,
        """
        INSERT INTO registry.tools (tenant_id, tool_id, name, description, input_schema, transport, builtin, effect,
                                    cost_per_call_nanos, labels, digest)
        SELECT $1, lpad(to_hex(number), 32, '0')::uuid, 't_' || number, 'x', '{}', 'builtin', 'clock', 'read_only', 0,
               jsonb_build_object('k', (number % 10)::text), repeat('a', 64)
          FROM generate_series(1, 2000) AS number
        """,
        "UPDATE registry.tools SET status = 'deprecated' WHERE tenant_id = $1 AND name LIKE '%00'",
        """
        INSERT INTO registry.agent_revisions (tenant_id, agent_id, revision, name, display_name, description,
                                              behavior_type, instructions, llm, capabilities, behavior, metadata,
                                              labels)
        SELECT tenant_id, agent_id, revision, name, display_name, description, behavior_type, instructions, llm,
               capabilities, behavior, metadata, labels FROM registry.agents WHERE tenant_id = $1
        """,
        """
        INSERT INTO registry.tool_versions (tenant_id, tool_id, version, name, description, input_schema, transport,
                                            builtin, effect, cost_per_call_nanos, labels, digest)
        SELECT tenant_id, tool_id, version, name, description, input_schema, transport, builtin, effect,
               cost_per_call_nanos, labels, digest FROM registry.tools WHERE tenant_id = $1
        """,
        """
        INSERT INTO registry.agent_tools (tenant_id, agent_id, tool_id, configuration, bound_digest)
        SELECT tenant_id, agent_id, lpad(to_hex(1 + abs(hashtext(name)) % 2000), 32, '0')::uuid, '{}', ''
          FROM registry.agents WHERE tenant_id = $1
        """,
        """
        INSERT INTO registry.api_keys (tenant_id, api_key_id, display_name, prefix, digest)
        SELECT $1, lpad(to_hex(number), 32, '0')::uuid, '', '', sha256(number::text::bytea)
          FROM generate_series(1, 2000) AS number
        """,
        """
        INSERT INTO registry.tenants (tenant_id, name, display_name)
        SELECT lpad(to_hex(number), 32, '0')::uuid, 'crowd-' || number, '' FROM generate_series(1, 2000) AS number
         WHERE $1::uuid IS NOT NULL
        """,
        "INSERT INTO registry.changes (tenant_id, resource_id, kind)"
        " SELECT tenant_id, agent_id, 'created' FROM registry.agents WHERE tenant_id = $1",
    ):
        await owner.execute(statement, tenant_id)
    await owner.execute(
        "VACUUM (ANALYZE) registry.agents, registry.agent_revisions, registry.agent_labels,"
        " registry.agent_capabilities, registry.agent_metadata, registry.agent_words, registry.tools,"
        " registry.tool_versions, registry.tool_labels, registry.agent_tools, registry.api_keys, registry.changes,"
        " registry.tenants"
    )
    return tenant_id


async def _plan(transaction: Transaction, sql: str, *args: object) -> str:
    return "\n".join(row[0] for row in await transaction.fetch(f"EXPLAIN {sql}", *args))


_AGENTS = queries.load("minion_registry.agents")
_TOOLS = queries.load("minion_registry.tools")
_BINDINGS = queries.load("minion_registry.bindings")
_API_KEYS = queries.load("minion_registry.api_keys")


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize(
    ("query", "extra", "index"),
    [
        ("list_agents", (), "agents_create_time"),
        ("list_agents_by_status", ("active", None), "agents_status"),
        ("list_agents_by_behavior_type", ("conversational",), "agents_behavior_type"),
        ("list_agents_by_capability", (None, None, "c-7", None), "agent_capabilities_capability"),
        ("list_agents_by_label", (None, None, None, "k", "7", None), "agent_labels_value"),
        ("list_agents_by_metadata", (None, None, None, LEAF, [LEAF], None), "agent_metadata_leaf"),
    ],
)
async def test_agents_are_listed_by_an_index_in_its_order(
    app: Database, crowd: UUID, query: str, extra: tuple[object, ...], index: str, generic: bool
) -> None:
    async with app.transaction(crowd) as transaction:
        # Prepared statements are planned without their values in the long run.
        mode = "force_generic_plan" if generic else "force_custom_plan"
        await transaction.execute(f"SET LOCAL plan_cache_mode = {mode}")
        plan = await _plan(transaction, _AGENTS[query], crowd, datetime.now(UTC), UUID(int=1), 51, *extra)
    assert re.search(rf"Index (Only )?Scan using {index}", plan), plan
    assert re.search(r"Index Cond: .*ROW\((\w+\.)?(agent_)?create_time, (\w+\.)?agent_id\) <", plan), plan
    assert "Seq Scan" not in plan, plan
    assert "Sort" not in plan, plan


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("filters", [(None, None), ("draft", ["c-7"])])
async def test_a_search_walks_its_words_newest_first(
    app: Database, crowd: UUID, filters: tuple[object, object], generic: bool
) -> None:
    async with app.transaction(crowd) as transaction:
        mode = "force_generic_plan" if generic else "force_custom_plan"
        await transaction.execute(f"SET LOCAL plan_cache_mode = {mode}")
        place = (2.0, datetime.now(UTC), UUID(int=1))
        plan = await _plan(transaction, _AGENTS.search_agents, crowd, "a 7", *filters, 1_000, *place, 21)
    assert re.search(r"Index Only Scan using agent_words_word .*\n.*Index Cond: .*word =", plan), plan
    assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize(
    ("query", "args", "index"),
    [
        (_AGENTS.get_agent, (UUID(int=7),), "agents_pkey"),
        (_AGENTS.get_agent_by_name, ("a-7",), "agents_name_key"),
        (_AGENTS.get_agents, ([UUID(int=7), UUID(int=8)],), "agents_pkey"),
        (_AGENTS.running_rollout, (UUID(int=7),), "agents_pkey"),
        (_AGENTS.list_agent_revisions, (UUID(int=7), 9, 51), "agent_revisions_pkey"),
        (_AGENTS.get_agent_revisions, (UUID(int=7), [1, 2]), "agent_revisions_pkey"),
        (_TOOLS.get_tools, ([UUID(int=7), UUID(int=8)],), "tools_pkey"),
        (_TOOLS.get_tool_by_name, ("t_7",), "tools_name_key"),
        (_TOOLS.list_tools, ("t_7", 51), "tools_name_key"),
        (_TOOLS.list_tools_by_transport, ("t_7", 51, "builtin"), "tools_(transport|name_key)"),
        (_TOOLS.list_tools_by_status, ("", 51, "deprecated", None), "tools_status"),
        (_TOOLS.list_tools_by_label, ("", 51, None, None, "k", "7", None), "tool_labels_value"),
        (_TOOLS.list_tool_versions, (UUID(int=7), 9, 51), "tool_versions_pkey"),
        (_TOOLS.get_tool_versions, (UUID(int=7), [1, 2]), "tool_versions_pkey"),
        (_TOOLS.list_bound_agents, (UUID(int=7), "a" * 64, 1_000), "agent_tools_tool"),
        (_TOOLS.find_crowded_agent, (UUID(int=7), 3_000_000), "agent_tools_tool"),
        (_BINDINGS.measure_tools, (UUID(int=7),), "agent_tools_pkey"),
        (_BINDINGS.list_agent_tools, (UUID(int=7), "", 51), "agent_tools_pkey"),
        (_API_KEYS.list_api_keys, (datetime.now(UTC), UUID(int=7), 51), "api_keys_create_time"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_what_is_asked_is_found_by_an_index(
    app: Database, crowd: UUID, query: str, args: tuple[object, ...], index: str
) -> None:
    async with app.transaction(crowd) as transaction:
        plan = await _plan(transaction, query, crowd, *args)
    assert re.search(rf"Scan (Backward )?(using|on) {index}", plan), plan
    assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize(
    ("body", "index"),
    [
        (
            "SELECT FROM registry.api_keys k JOIN registry.tenants t ON t.tenant_id = k.tenant_id"
            " WHERE k.digest = sha256('7') AND k.revoke_time IS NULL",
            "api_keys_digest_key",
        ),
        ("SELECT FROM registry.tenants t WHERE t.name > 'b' ORDER BY t.name LIMIT 51", "tenants_name_key"),
        (
            "SELECT FROM registry.tenants t WHERE t.status = 'suspended' AND t.name > 'b' ORDER BY t.name LIMIT 51",
            "tenants_status",
        ),
        (
            "SELECT FROM registry.changes c WHERE (c.xid, c.id) > ('9', 0)"
            " AND c.xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY c.xid, c.id LIMIT 500",
            "changes_order",
        ),
    ],
)
async def test_what_crosses_tenants_is_found_by_an_index(owner: Database, crowd: UUID, body: str, index: str) -> None:
    # The bodies of verify_api_key, list_tenants and read_all_changes, which run as the owner.
    async with owner.transaction(None) as transaction:
        plan = await _plan(transaction, body)
    assert re.search(rf"Index (Only )?Scan using {index}", plan), plan
