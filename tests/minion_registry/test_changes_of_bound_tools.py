"""Changes of tools that agents have: blocked bindings, the feed, the audit."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import grpc
import pytest
import pytest_asyncio
from minion.registry.v1 import agent_pb2, agent_service_pb2, tool_pb2
from minion.registry.v1 import tool_service_pb2 as pb
from minion_postgres import Database
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase

from tests.minion_registry.stage import Caller, struct
from tests.minion_registry.tool_moves import audit, deprecate, retire, states, updated


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owner(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The database as migrations and maintenance see it."""
    async with await postgres.connect("registry", "owner") as database:
        yield database


async def test_a_changed_digest_blocks_and_binding_again_frees_and_the_audit_tells_all_three(
    tenant: Caller, owner: Database
) -> None:
    tool = await tenant.register()
    agents = [await tenant.create() for _ in range(3)]
    for agent in agents:
        await tenant.bind(agent.agent_id, tool.tool_id)
    free = await updated(tenant, tool.tool_id, documentation="More.")
    assert (free.blocked_binding_count, free.tool.digest) == (0, tool.digest)
    changed = await updated(tenant, tool.tool_id, description="Other.")
    assert changed.blocked_binding_count == 3
    for agent in agents:
        assert await states(tenant, agent.agent_id) == [agent_pb2.BINDING_STATE_DIGEST_CHANGED]
    # What is blocked already is not blocked once more.
    again = await updated(tenant, tool.tool_id, description="Another.")
    assert again.blocked_binding_count == 0
    await tenant.bind(agents[0].agent_id, tool.tool_id)
    assert await states(tenant, agents[0].agent_id) == [agent_pb2.BINDING_STATE_USABLE]
    await tenant.agents.UnbindTool(
        agent_service_pb2.UnbindToolRequest(agent_id=agents[1].agent_id, tool_id=tool.tool_id)
    )

    told = await audit(owner, tenant)
    assert [name for name, _, _ in told] == [
        "tool.register",
        *["binding.bind"] * 3,
        "tool.update",
        "tool.update",
        *["binding.block"] * 3,
        "tool.update",
        "binding.bind",
        "binding.unbind",
    ]
    assert told[5][1] == {
        "tool_id": tool.tool_id,
        "name": tool.name,
        "version": 3,
        "digest": changed.tool.digest,
        "old_version": 2,
        "old_digest": tool.digest,
        "fields": ["description"],
        "blocked_binding_count": 3,
        "freed_binding_count": 0,
    }
    assert {agent for _, _, agent in told[6:9]} == {agent.agent_id for agent in agents}
    assert all(details["state"] == "DIGEST_CHANGED" for _, details, _ in told[6:9])
    assert [(details["again"], details["freed"]) for _, details, _ in told[1:4]] == [(False, False)] * 3
    assert (told[10][1]["again"], told[10][1]["freed"], told[10][2]) == (True, True, agents[0].agent_id)
    assert told[11][2] == agents[1].agent_id


async def test_retiring_blocks_every_binding(tenant: Caller, owner: Database) -> None:
    tool, agent = await tenant.register(), await tenant.create()
    await tenant.bind(agent.agent_id, tool.tool_id)
    await deprecate(tenant, tool.tool_id)
    assert await states(tenant, agent.agent_id) == [agent_pb2.BINDING_STATE_USABLE]
    answer = await tenant.tools.RetireTool(pb.RetireToolRequest(tool_id=tool.tool_id, note="Gone."))
    assert answer.blocked_binding_count == 1
    assert await states(tenant, agent.agent_id) == [agent_pb2.BINDING_STATE_TOOL_RETIRED]
    told = await audit(owner, tenant)
    assert [name for name, _, _ in told[2:]] == ["tool.deprecate", "tool.retire", "binding.block"]
    assert told[-1][1]["state"] == "TOOL_RETIRED"


async def test_what_is_refused_is_not_told(tenant: Caller, owner: Database) -> None:
    tool, agent = await tenant.register(name="now"), await tenant.create()
    other = await tenant.register(name="other")
    await retire(tenant, other.tool_id)
    before = await audit(owner, tenant)
    for attempt in (
        tenant.register(name="now"),
        updated(tenant, tool.tool_id, name="other"),
        updated(tenant, tool.tool_id, description="x", etag="stale"),
        updated(tenant, other.tool_id, description="x"),
        deprecate(tenant, other.tool_id),
        tenant.bind(agent.agent_id, other.tool_id),
        tenant.bind(agent.agent_id, tool.tool_id, expected_digest="0" * 64),
        tenant.agents.UnbindTool(agent_service_pb2.UnbindToolRequest(agent_id=agent.agent_id, tool_id=tool.tool_id)),
    ):
        with pytest.raises(grpc.aio.AioRpcError):
            await attempt
    assert await audit(owner, tenant) == before


async def test_of_many_blocked_bindings_the_audit_names_a_thousand(tenant: Caller, owner: Database) -> None:
    tool = await tenant.register()
    await owner.execute(
        "INSERT INTO registry.agents (tenant_id, agent_id, name, display_name, description, behavior_type,"
        " instructions, llm, capabilities, behavior, metadata, labels)"
        " SELECT $1, gen_random_uuid(), 'many-' || n, '', '', 'tool_use', '', '{}', '{}', '{}', '{}', '{}'"
        " FROM generate_series(1, 1100) n",
        tenant.tenant_id,
    )
    await owner.execute(
        "INSERT INTO registry.agent_tools (tenant_id, agent_id, tool_id, configuration, bound_digest)"
        " SELECT tenant_id, agent_id, $2::text::uuid, '{}', $3 FROM registry.agents WHERE tenant_id = $1",
        tenant.tenant_id,
        tool.tool_id,
        tool.digest,
    )
    assert (await updated(tenant, tool.tool_id, description="Other.")).blocked_binding_count == 1_100
    told = await audit(owner, tenant)
    assert told[1][1]["blocked_binding_count"] == 1_100
    assert len({agent for name, _, agent in told if name == "binding.block"}) == 1_000


async def test_default_settings_count_twice_since_bindings_show_them_merged(tenant: Caller, owner: Database) -> None:
    agent = await tenant.create()
    tool = await tenant.register(documentation="\N{GRINNING FACE}" * 20_000)
    other = await tenant.register()
    for bound in (tool, other):
        await tenant.bind(agent.agent_id, bound.tool_id)
    # Full but for some bytes.
    await owner.execute(
        "UPDATE registry.tools SET documentation = repeat('x', 3050000) WHERE tool_id = $1::text::uuid", other.tool_id
    )
    settings = struct({"a": "x" * 16_000})
    # Less by 80 KB in the one field, more by 16 KB in the other: 64 KB each where it stands, as they are counted.
    async with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_TOOLS"):
        await updated(tenant, tool.tool_id, documentation="", default_configuration=settings)
    await updated(tenant, tool.tool_id, documentation="")


async def test_an_agent_that_has_the_tool_must_still_fit_into_a_message(tenant: Caller, owner: Database) -> None:
    agent = await tenant.create()
    large = struct({"type": "object", "title": "x" * 65_000})
    tools = [await tenant.register(input_schema=large) for _ in range(10)]
    for tool in tools:
        await tenant.bind(agent.agent_id, tool.tool_id)
    async with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_TOOLS") as refusal:
        for tool in tools:
            await updated(tenant, tool.tool_id, output_schema=large)
    assert refusal.metadata == {"limit_bytes": str(3 * 1024 * 1024), "agent_id": agent.agent_id}
    resolved = await tenant.agents.ResolveAgent(agent_service_pb2.ResolveAgentRequest(agent_id=agent.agent_id))
    assert resolved.ByteSize() < 4 * 1024 * 1024
    # What doesn't grow is taken, however full the agent is by now.
    await owner.execute(
        "UPDATE registry.tools SET documentation = repeat('x', 3500000) WHERE tool_id = $1::text::uuid",
        tools[0].tool_id,
    )
    await updated(tenant, tools[-1].tool_id, cost_per_call_nanos=3)
    async with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_TOOLS"):
        await updated(tenant, tools[-1].tool_id, documentation="x")


async def test_a_change_of_a_tool_is_told_to_watchers(tenant: Caller) -> None:
    tool = await tenant.register()
    watching: Any = tenant.agents.WatchAgents(agent_service_pb2.WatchAgentsRequest(include_tools=True))
    told: list[agent_service_pb2.WatchAgentsResponse] = []
    try:
        async with asyncio.timeout(60):
            assert (await watching.read()).kind == agent_pb2.AGENT_CHANGE_KIND_SYNCED
            await updated(tenant, tool.tool_id, documentation="More.")
            await deprecate(tenant, tool.tool_id)
            await retire(tenant, tool.tool_id)
            while len(told) < 3:
                change = await watching.read()
                # That it is synced is said after each silence, also before the first change shows.
                if change.kind != agent_pb2.AGENT_CHANGE_KIND_SYNCED:
                    told.append(change)
    finally:
        watching.cancel()
    for change in told:
        assert change.kind == agent_pb2.AGENT_CHANGE_KIND_TOOL_CHANGED
        assert (change.tool_id, change.agent_id) == (tool.tool_id, "")
        assert UUID(change.tenant_id) == tenant.tenant_id


async def test_a_tool_that_is_again_what_was_bound_is_freed_and_the_audit_says_so(
    tenant: Caller, owner: Database
) -> None:
    agent, tool = await tenant.create(), await tenant.register(description="Tells the time.")
    await tenant.bind(agent.agent_id, tool.tool_id)
    for description in ("Sends the time to a stranger.", "Tells the time."):
        changed = pb.UpdateToolRequest(tool=tool_pb2.Tool(tool_id=tool.tool_id, description=description))
        changed.update_mask.paths.append("description")
        await tenant.tools.UpdateTool(changed)
    told = (await audit(owner, tenant))[2:]
    assert [(name, agent_id) for name, _, agent_id in told] == [
        ("tool.update", None),
        ("binding.block", agent.agent_id),
        ("tool.update", None),
        ("binding.free", agent.agent_id),
    ]
    assert [details["freed_binding_count"] for name, details, _ in told if name == "tool.update"] == [0, 1]
