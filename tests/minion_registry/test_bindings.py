"""BindTool, UnbindTool, ListAgentTools, ResolveAgent."""

import asyncio

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from minion.registry.v1 import agent_pb2, tool_pb2, tool_service_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller, over, struct

NOWHERE = "018f0000-0000-7000-8000-000000000000"


async def tools_of(caller: Caller, agent_id: str) -> list[agent_pb2.AgentTool]:
    answer = await caller.agents.ListAgentTools(pb.ListAgentToolsRequest(agent_id=agent_id))
    return list(answer.agent_tools)


async def test_a_tool_is_bound_with_its_digest_and_settings(tenant: Caller) -> None:
    agent, tool = await tenant.create(), await tenant.register()
    bound = await tenant.bind(agent.agent_id, tool.tool_id, configuration=struct({"zone": "UTC", "limit": 3}))
    assert bound.create_time.seconds
    assert bound == agent_pb2.AgentTool(
        agent_id=agent.agent_id,
        tool=tool,
        configuration=struct({"zone": "UTC", "limit": 3}),
        bound_digest=tool.digest,
        create_time=bound.create_time,
        state=agent_pb2.BINDING_STATE_USABLE,
        merged_configuration=struct({"zone": "UTC", "limit": 3}),
    )
    assert await tools_of(tenant, agent.agent_id) == [bound]


async def test_binding_changes_the_etag_and_makes_no_revision(tenant: Caller) -> None:
    agent, tool = await tenant.create(), await tenant.register()
    await tenant.bind(agent.agent_id, tool.tool_id)
    bound = await tenant.get(agent.agent_id)
    await tenant.agents.UnbindTool(pb.UnbindToolRequest(agent_id=agent.agent_id, tool_id=tool.tool_id))
    unbound = await tenant.get(agent.agent_id)
    assert len({agent.etag, bound.etag, unbound.etag}) == 3
    assert unbound.revision == agent.revision


async def test_binding_again_replaces_the_settings_and_pins_the_digest_anew(
    tenant: Caller, postgres: ClonedDatabase
) -> None:
    agent, tool = await tenant.create(), await tenant.register()
    first = await tenant.bind(agent.agent_id, tool.tool_id, configuration=struct({"a": 1}))
    async with await postgres.connect("registry", "owner") as database:
        await database.execute(
            "UPDATE registry.tools SET digest = repeat('a', 64) WHERE tool_id = $1::text::uuid", tool.tool_id
        )
    stale = await tools_of(tenant, agent.agent_id)
    assert (stale[0].tool.digest, stale[0].bound_digest) == ("a" * 64, tool.digest)
    again = await tenant.bind(agent.agent_id, tool.tool_id, configuration=struct({"b": 2}))
    assert again.bound_digest == "a" * 64
    assert again.configuration == struct({"b": 2})
    assert again.create_time.ToMicroseconds() > first.create_time.ToMicroseconds()
    assert await tools_of(tenant, agent.agent_id) == [again]


async def test_a_repeated_binding_and_unbinding_change_once(tenant: Caller) -> None:
    agent, tool = await tenant.create(), await tenant.register(time_limit=Duration(nanos=10_000_000))
    bind = pb.BindToolRequest(agent_id=agent.agent_id, tool_id=tool.tool_id, request_id=str(uuid7()))
    first = await tenant.agents.BindTool(bind)
    etag = (await tenant.get(agent.agent_id)).etag
    assert await tenant.agents.BindTool(bind) == first
    assert (await tenant.get(agent.agent_id)).etag == etag
    unbind = pb.UnbindToolRequest(agent_id=agent.agent_id, tool_id=tool.tool_id, request_id=str(uuid7()))
    assert await tenant.agents.UnbindTool(unbind) == await tenant.agents.UnbindTool(unbind)
    assert await tools_of(tenant, agent.agent_id) == []
    bind.configuration.update({"other": True})
    unbind.tool_id = NOWHERE
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await tenant.agents.BindTool(bind)
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await tenant.agents.UnbindTool(unbind)


async def test_what_is_not_there_or_not_ours_cannot_be_bound(tenant: Caller, stranger: Caller) -> None:
    agent, tool = await tenant.create(), await tenant.register()
    foreign_agent, foreign_tool = await stranger.create(), await stranger.register()
    for agent_id in (NOWHERE, foreign_agent.agent_id):
        async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"):
            await tenant.bind(agent_id, tool.tool_id)
        async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"):
            await tenant.agents.UnbindTool(pb.UnbindToolRequest(agent_id=agent_id, tool_id=tool.tool_id))
        async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"):
            await tools_of(tenant, agent_id)
        async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"):
            await tenant.agents.ResolveAgent(pb.ResolveAgentRequest(agent_id=agent_id))
    for tool_id in (NOWHERE, foreign_tool.tool_id):
        async with refused(grpc.StatusCode.NOT_FOUND, "TOOL_NOT_FOUND"):
            await tenant.bind(agent.agent_id, tool_id)
        async with refused(grpc.StatusCode.NOT_FOUND, "BINDING_NOT_FOUND"):
            await tenant.agents.UnbindTool(pb.UnbindToolRequest(agent_id=agent.agent_id, tool_id=tool_id))
    async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"):
        await tenant.agents.ResolveAgent(pb.ResolveAgentRequest(name=foreign_agent.name))


async def test_an_archived_agents_tools_stay_as_they_are(tenant: Caller) -> None:
    agent, tool, other = await tenant.create(), await tenant.register(), await tenant.register()
    await tenant.bind(agent.agent_id, tool.tool_id)
    await tenant.archive(agent.agent_id)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "AGENT_STATUS_UNSUITABLE"):
        await tenant.bind(agent.agent_id, other.tool_id)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "AGENT_STATUS_UNSUITABLE"):
        await tenant.agents.UnbindTool(pb.UnbindToolRequest(agent_id=agent.agent_id, tool_id=tool.tool_id))
    assert len(await tools_of(tenant, agent.agent_id)) == 1


async def test_malformed_bindings_are_told(tenant: Caller) -> None:
    large = struct({"x": "y" * 16_384})
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.agents.BindTool(pb.BindToolRequest(configuration=large, request_id="x"))
    assert set(refusal.violations) == {"agent_id", "tool_id", "configuration", "request_id"}
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.agents.UnbindTool(pb.UnbindToolRequest())
    assert set(refusal.violations) == {"agent_id", "tool_id"}
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.agents.ListAgentTools(pb.ListAgentToolsRequest(page_size=-1))
    assert set(refusal.violations) == {"agent_id", "page_size"}


async def test_an_agent_has_at_most_128_tools(tenant: Caller, postgres: ClonedDatabase) -> None:
    agent = await tenant.create()
    last = await tenant.register(name="zz_last")
    one_more = await tenant.register(name="zz_one_more")
    async with await postgres.connect("registry", "owner") as database:
        # Through the service these would be 254 calls; what is tested is the 128th and 129th.
        await database.execute(
            "INSERT INTO registry.tools (tenant_id, tool_id, name, description, input_schema, transport, builtin,"
            " effect, cost_per_call_nanos, labels, digest)"
            " SELECT tenant_id, gen_random_uuid(), 'copy_' || n, description, input_schema, transport, builtin, effect,"
            " 0, labels, digest FROM registry.tools, generate_series(1, 127) n WHERE tool_id = $1::text::uuid",
            last.tool_id,
        )
        await database.execute(
            "INSERT INTO registry.agent_tools (tenant_id, agent_id, tool_id, configuration, bound_digest)"
            " SELECT tenant_id, $2::text::uuid, tool_id, '{}', digest FROM registry.tools"
            " WHERE tenant_id = $1 AND name LIKE 'copy%'",
            tenant.tenant_id,
            agent.agent_id,
        )
    await tenant.bind(agent.agent_id, last.tool_id)
    async with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_TOOLS") as refusal:
        await tenant.bind(agent.agent_id, one_more.tool_id)
    assert refusal.metadata == {"limit": "128"}
    await tenant.bind(agent.agent_id, last.tool_id, configuration=struct({"again": True}))
    resolved = await tenant.agents.ResolveAgent(pb.ResolveAgentRequest(agent_id=agent.agent_id))
    assert len(resolved.resolved_agent.tools) == 128


async def test_an_agents_tools_fit_into_a_message(tenant: Caller) -> None:
    agent = await tenant.create(instructions="🙂" * 100_000)
    large = struct({"type": "object", "title": "x" * 65_000})
    bound = 0
    while bound < 20:
        tool = await tenant.register(input_schema=large)
        try:
            await tenant.bind(agent.agent_id, tool.tool_id, configuration=struct({"text": "x" * 16_000}))
        except grpc.aio.AioRpcError:
            break
        bound += 1
    async with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_TOOLS") as refusal:
        await tenant.bind(agent.agent_id, tool.tool_id, configuration=struct({"text": "x" * 16_000}))
    assert refusal.metadata == {"limit_bytes": str(3 * 1024 * 1024)}
    resolved = await tenant.agents.ResolveAgent(pb.ResolveAgentRequest(agent_id=agent.agent_id))
    assert 1 < len(resolved.resolved_agent.tools) == bound
    assert resolved.ByteSize() < 4 * 1024 * 1024


async def test_tools_of_an_agent_are_listed_by_name_page_by_page(tenant: Caller) -> None:
    agent, other = await tenant.create(), await tenant.create()
    for name in ("b", "a", "d", "c", "e"):
        tool = await tenant.register(name=name)
        await tenant.bind(agent.agent_id, tool.tool_id)
    found: list[str] = []
    token = ""
    while True:
        page = await tenant.agents.ListAgentTools(
            pb.ListAgentToolsRequest(agent_id=agent.agent_id, page_size=2, page_token=token)
        )
        found.extend(bound.tool.name for bound in page.agent_tools)
        if not page.next_page_token:
            break
        token = page.next_page_token
    assert found == ["a", "b", "c", "d", "e"]
    for agent_id, wrong in ((other.agent_id, token), (agent.agent_id, "x")):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
            await tenant.agents.ListAgentTools(pb.ListAgentToolsRequest(agent_id=agent_id, page_token=wrong))


@pytest.mark.parametrize("named", ["agent_id", "name"])
async def test_a_resolved_agent_is_what_the_other_calls_tell(tenant: Caller, named: str) -> None:
    agent = await tenant.create(
        llm=agent_pb2.LlmConfig(temperature=0.5),
        behavior=agent_pb2.BehaviorSettings(max_duration=Duration(seconds=7)),
        labels={"a": "b"},
        metadata=struct({"x": [1.5, {"y": None}]}),
    )
    for name in ("b", "a"):
        tool = await tenant.register(
            name=name,
            time_limit=Duration(nanos=10_000_000) if name == "a" else None,
            input_schema=struct({"type": "object", "properties": {"n": {"maximum": 1.25}}}),
            labels={"k": "v"},
            cost_per_call_nanos=10**15,
        )
        await tenant.bind(agent.agent_id, tool.tool_id, configuration=struct({"nested": {"n": 1}}))
    now = await tenant.activate(agent.agent_id)
    request = pb.ResolveAgentRequest(**{named: getattr(agent, named)})
    resolved = (await tenant.agents.ResolveAgent(request)).resolved_agent
    assert resolved.agent == now
    assert list(resolved.tools) == await tools_of(tenant, agent.agent_id)
    assert [bound.tool.name for bound in resolved.tools] == ["a", "b"]


async def test_resolving_is_one_statement_for_a_service(registry: Served, tenant: Caller) -> None:
    agent = await tenant.create()
    registry.telemetry.flush()
    registry.collected.clear()
    async with registry.acting(tenant.tenant_id) as channel:
        request = pb.ResolveAgentRequest(agent_id=agent.agent_id)
        resolved = await over(channel, tenant.tenant_id).agents.ResolveAgent(request)
    assert resolved.resolved_agent.agent == agent
    assert not resolved.resolved_agent.tools
    statements = [span.name for span in registry.spans() if span.name.startswith("registry.")]
    assert statements == ["registry.resolve_agent"]


SETTINGS = {
    "type": "object",
    "properties": {"zone": {"type": "string"}, "limits": {"additionalProperties": {"type": "integer"}}},
    "required": ["zone", "region"],
    "additionalProperties": True,
}


async def test_settings_are_laid_over_the_tools_own_and_checked_together(tenant: Caller) -> None:
    agent = await tenant.create()
    tool = await tenant.register(
        configuration_schema=struct(SETTINGS),
        default_configuration=struct({"zone": "UTC", "limits": {"a": 1, "b": 2}, "style": "long"}),
    )
    for configuration, paths in (
        ({}, {"configuration"}),
        ({"region": "eu", "zone": None}, {"configuration"}),
        ({"region": "eu", "zone": 3, "limits": {"c": "x"}}, {"configuration.zone", "configuration.limits.c"}),
    ):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "BINDING_CONFIGURATION_INVALID") as refusal:
            await tenant.bind(agent.agent_id, tool.tool_id, configuration=struct(configuration))
        assert set(refusal.violations) == paths
    assert await tools_of(tenant, agent.agent_id) == []
    given = struct({"region": "eu", "limits": {"a": None, "c": 3}, "style": None})
    bound = await tenant.bind(agent.agent_id, tool.tool_id, configuration=given)
    assert bound.configuration == given
    assert bound.merged_configuration == struct({"zone": "UTC", "region": "eu", "limits": {"b": 2, "c": 3}})
    assert await tools_of(tenant, agent.agent_id) == [bound]
    resolved = await tenant.agents.ResolveAgent(pb.ResolveAgentRequest(agent_id=agent.agent_id))
    assert list(resolved.resolved_agent.tools) == [bound]


async def test_settings_that_fit_no_longer_are_blocked_until_others_do(tenant: Caller) -> None:
    agent, tool = await tenant.create(), await tenant.register()
    await tenant.bind(agent.agent_id, tool.tool_id, configuration=struct({"zone": 3}))
    update = tool_service_pb2.UpdateToolRequest(
        tool=tool_pb2.Tool(tool_id=tool.tool_id, configuration_schema=struct(SETTINGS))
    )
    update.update_mask.paths.append("configuration_schema")
    assert (await tenant.tools.UpdateTool(update)).blocked_binding_count == 1
    (blocked,) = await tools_of(tenant, agent.agent_id)
    assert blocked.state == agent_pb2.BINDING_STATE_DIGEST_CHANGED
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "BINDING_CONFIGURATION_INVALID"):
        await tenant.bind(agent.agent_id, tool.tool_id, configuration=blocked.configuration)
    fitting = struct({"zone": "UTC", "region": "eu"})
    assert (await tenant.bind(agent.agent_id, tool.tool_id, configuration=fitting)).state == (
        agent_pb2.BINDING_STATE_USABLE
    )


async def test_a_binding_is_for_what_was_looked_at(tenant: Caller) -> None:
    agent, tool = await tenant.create(), await tenant.register()
    await tenant.bind(agent.agent_id, tool.tool_id, expected_digest=tool.digest)
    update = tool_service_pb2.UpdateToolRequest(tool=tool_pb2.Tool(tool_id=tool.tool_id, description="Other."))
    update.update_mask.paths.append("description")
    changed = (await tenant.tools.UpdateTool(update)).tool
    async with refused(grpc.StatusCode.ABORTED, "DIGEST_MISMATCH") as refusal:
        await tenant.bind(agent.agent_id, tool.tool_id, expected_digest=tool.digest)
    assert refusal.metadata == {"tool_id": tool.tool_id, "digest": changed.digest}
    await tenant.bind(agent.agent_id, tool.tool_id, expected_digest=changed.digest)
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.bind(agent.agent_id, tool.tool_id, expected_digest="x")
    assert set(refusal.violations) == {"expected_digest"}


async def test_a_deprecated_tool_stays_with_those_who_have_it(tenant: Caller) -> None:
    agent, other, tool = await tenant.create(), await tenant.create(), await tenant.register()
    await tenant.bind(agent.agent_id, tool.tool_id)
    await tenant.tools.DeprecateTool(tool_service_pb2.DeprecateToolRequest(tool_id=tool.tool_id))
    await tenant.bind(agent.agent_id, tool.tool_id, configuration=struct({"again": True}))
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "TOOL_STATUS_UNSUITABLE") as refusal:
        await tenant.bind(other.agent_id, tool.tool_id)
    assert refusal.metadata == {"tool_id": tool.tool_id, "status": "DEPRECATED"}
    await tenant.tools.RetireTool(tool_service_pb2.RetireToolRequest(tool_id=tool.tool_id))
    for agent_id in (agent.agent_id, other.agent_id):
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "TOOL_STATUS_UNSUITABLE") as refusal:
            await tenant.bind(agent_id, tool.tool_id)
        assert refusal.metadata == {"tool_id": tool.tool_id, "status": "RETIRED"}
    await tenant.agents.UnbindTool(pb.UnbindToolRequest(agent_id=agent.agent_id, tool_id=tool.tool_id))


async def test_a_replayed_binding_is_told_as_it_was(tenant: Caller) -> None:
    agent, tool = await tenant.create(), await tenant.register(configuration_schema=struct({"type": "object"}))
    request = pb.BindToolRequest(agent_id=agent.agent_id, tool_id=tool.tool_id, request_id=str(uuid7()))
    first = await tenant.agents.BindTool(request)
    # What it would be refused for by now is not looked at again.
    await tenant.tools.RetireTool(tool_service_pb2.RetireToolRequest(tool_id=tool.tool_id))
    assert await tenant.agents.BindTool(request) == first


async def test_a_binding_that_meets_a_change_of_its_schema_is_never_usable_with_what_does_not_fit(
    tenant: Caller,
) -> None:
    for _ in range(10):
        agent, tool = await tenant.create(), await tenant.register()
        update = tool_service_pb2.UpdateToolRequest(
            tool=tool_pb2.Tool(tool_id=tool.tool_id, configuration_schema=struct(SETTINGS))
        )
        update.update_mask.paths.append("configuration_schema")
        # Either the binding comes first and is blocked, or the change does and refuses it.
        bound, _ = await asyncio.gather(
            tenant.bind(agent.agent_id, tool.tool_id, configuration=struct({"zone": 3})),
            tenant.tools.UpdateTool(update),
            return_exceptions=True,
        )
        states = [found.state for found in await tools_of(tenant, agent.agent_id)]
        if isinstance(bound, BaseException):
            assert states == []
        else:
            assert states == [agent_pb2.BINDING_STATE_DIGEST_CHANGED]
