"""The registry's migrations go both ways."""

from collections.abc import Awaitable, Callable
from importlib import resources

from minion.registry.v1 import agent_pb2, agent_service_pb2, tool_pb2, tool_service_pb2
from minion_postgres import Migrations
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import serve
from minion_testing.tenants import new_tenant
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import calling, over

LEFT = (
    "SELECT relname::text AS name FROM pg_class WHERE relnamespace = 'registry'::regnamespace AND relkind IN ('r', 'S')"
    " UNION SELECT proname::text FROM pg_proc WHERE pronamespace = 'registry'::regnamespace"
)


async def test_down_leaves_nothing_and_up_brings_it_back(
    database_factory: Callable[[], Awaitable[ClonedDatabase]],
) -> None:
    database = await database_factory()
    migrations = Migrations("registry", resources.files("minion_registry") / "migrations")
    owner = database.dsn("registry", "owner")
    assert await migrations.up(owner) == []
    steps = [step.name for step in migrations.steps]
    assert await migrations.down(owner, len(steps)) == steps[::-1]
    async with await database.connect("registry", "owner") as connection:
        assert {row["name"] for row in await connection.fetch(LEFT)} == {"schema_migrations"}
    brought = await migrations.up(owner)
    assert brought[: len(steps)] == steps
    assert all(name.startswith("functions") for name in brought[len(steps) :])
    async with serve("registry", database) as registry:
        await new_tenant(registry)


# What the release before wrote, as it wrote it.
TOOL_BEFORE = (
    "INSERT INTO registry.tools (tenant_id, tool_id, name, description, input_schema, transport, builtin, effect,"
    " cost_per_call_nanos, labels, digest) VALUES ($1, $2, 'now', 'x', '{\"type\": \"object\"}', 'builtin', 'clock',"
    " 'read_only', 0, '{\"team\": \"core\"}', repeat('a', 64))"
)
VERSION_BEFORE = (
    "INSERT INTO registry.tool_versions (tenant_id, tool_id, version, name, description, input_schema, transport,"
    " builtin, effect, time_limit, cost_per_call_nanos, labels, digest) SELECT tenant_id, tool_id, version, name,"
    " description, input_schema, transport, builtin, effect, time_limit, cost_per_call_nanos, labels, digest"
    " FROM registry.tools WHERE tenant_id = $1 AND tool_id = $2"
)
AGENT_BEFORE = (
    "INSERT INTO registry.agents (tenant_id, agent_id, name, display_name, description, behavior_type, instructions,"
    " llm, capabilities, behavior, metadata, labels) VALUES ($1, $2, 'a', '', '', 'tool_use', '', '{}', '{}', '{}',"
    " '{}', '{}')"
)
BINDING_BEFORE = (
    "INSERT INTO registry.agent_tools (tenant_id, agent_id, tool_id, configuration, bound_digest)"
    " VALUES ($1, $2, $2, '{}', repeat('a', 64))"
)


async def test_what_was_bound_before_tools_had_more_stays_bound(
    database_factory: Callable[[], Awaitable[ClonedDatabase]],
) -> None:
    database = await database_factory()
    migrations = Migrations("registry", resources.files("minion_registry") / "migrations")
    owner = database.dsn("registry", "owner")
    names = [step.name for step in migrations.steps]
    taken_back = len(names) - names.index("0004_tools")
    await migrations.down(owner, taken_back)
    tenant_id, found = uuid7(), uuid7()
    async with await database.connect("registry", "owner") as connection:
        await connection.execute(
            "INSERT INTO registry.tenants (tenant_id, name, display_name) VALUES ($1, 'acme', '')", tenant_id
        )
        for statement in (TOOL_BEFORE, VERSION_BEFORE, AGENT_BEFORE, BINDING_BEFORE):
            await connection.execute(statement, tenant_id, found)
    await migrations.up(owner)
    async with serve("registry", database) as registry, registry.acting(tenant_id) as channel:
        caller = over(channel, tenant_id)
        listed = await caller.tools.ListTools(tool_service_pb2.ListToolsRequest(labels={"team": "core"}))
        assert [tool.digest for tool in listed.tools] == ["a" * 64]
        versions = tool_service_pb2.ListToolVersionsRequest(tool_id=listed.tools[0].tool_id)
        assert [tool.version for tool in (await caller.tools.ListToolVersions(versions)).versions] == [1]
        tool = listed.tools[0]
        assert (tool.status, tool.approval) == (tool_pb2.TOOL_STATUS_ACTIVE, tool_pb2.TOOL_APPROVAL_NEVER)
        # Its digest covers less than digests cover now: it is kept until something that they cover changes.
        update = tool_service_pb2.UpdateToolRequest(tool=tool_pb2.Tool(tool_id=tool.tool_id, documentation="More."))
        update.update_mask.paths.append("documentation")
        updated = await caller.tools.UpdateTool(update)
        assert (updated.tool.digest, updated.tool.version, updated.blocked_binding_count) == ("a" * 64, 2, 0)
        resolve = agent_service_pb2.ResolveAgentRequest(agent_id=str(found))
        (bound,) = (await caller.agents.ResolveAgent(resolve)).resolved_agent.tools
        assert bound.state == agent_pb2.BINDING_STATE_USABLE
        update.tool.description = "Other."
        update.update_mask.paths.append("description")
        assert (await caller.tools.UpdateTool(update)).blocked_binding_count == 1


async def test_a_tool_that_the_release_before_registers_is_found_by_its_labels(
    database_factory: Callable[[], Awaitable[ClonedDatabase]],
) -> None:
    database = await database_factory()
    async with (
        serve("registry", database) as registry,
        calling(registry) as caller,
        await database.connect("registry", "owner") as owner,
    ):
        await owner.execute(TOOL_BEFORE, caller.tenant_id, uuid7())
        listed = await caller.tools.ListTools(tool_service_pb2.ListToolsRequest(labels={"team": "core"}))
        assert [tool.name for tool in listed.tools] == ["now"]


async def test_tools_that_the_release_before_does_not_know_go_with_the_way_down(
    database_factory: Callable[[], Awaitable[ClonedDatabase]],
) -> None:
    database = await database_factory()
    async with serve("registry", database) as registry, calling(registry) as caller:
        agent = await caller.create()
        for fields in ({"name": "stays"}, {"name": "goes", "transport": tool_pb2.TOOL_TRANSPORT_CLIENT, "builtin": ""}):
            await caller.bind(agent.agent_id, (await caller.register(**fields)).tool_id)
    migrations = Migrations("registry", resources.files("minion_registry") / "migrations")
    names = [step.name for step in migrations.steps]
    await migrations.down(database.dsn("registry", "owner"), len(names) - names.index("0004_tools"))
    async with await database.connect("registry", "owner") as connection:
        assert [row["name"] for row in await connection.fetch("SELECT name FROM registry.tools")] == ["stays"]
        assert await connection.fetch_value("SELECT count(*) FROM registry.agent_tools") == 1
