"""What is bound is what is called: blocked, unreached and unapproved tools are not."""

from typing import Any
from uuid import UUID

from google.protobuf.json_format import MessageToDict
from minion.activity.v1 import activity_pb2, activity_service_pb2
from minion.activity.v1.activity_service_pb2_grpc import ActivityServiceStub
from minion.gateway.v1 import run_pb2
from minion.registry.v1 import tool_pb2, tool_service_pb2
from minion_gateway.agents.peer import RegistryPeer
from minion_testing.fake_provider import FakeProvider
from minion_testing.provider_script import Reply

from tests.minion_gateway.runs.stage import Client, struct, until


def offered(provider: FakeProvider) -> list[str]:
    """The tools of the last prompt."""
    return sorted(each["function"]["name"] for each in provider.ledger.asked[-1].body.get("tools", []))


async def change(client: Client, tool_id: str, **fields: Any) -> None:
    request: Any = tool_service_pb2.UpdateToolRequest(tool=tool_pb2.Tool(tool_id=tool_id, **fields))
    request.update_mask.paths.extend(fields)
    await client.tools.UpdateTool(request)


async def told(client: Client, tool_id: str, *names: str) -> list[dict[str, Any]]:
    """The last thing that the audit tells of each name, about a tool; nothing until it tells of all."""
    kind = activity_pb2.ACTIVITY_KIND_ADMINISTRATION
    listed = await ActivityServiceStub(client.channel("activity")).ListActivities(
        activity_service_pb2.ListActivitiesRequest(kind=kind)
    )
    rows = [(row.name, MessageToDict(row.input)) for row in listed.activities]
    found = {name: details for name, details in reversed(rows) if details.get("tool_id") == tool_id}
    return [found[name] for name in names] if set(names) <= set(found) and found["binding.bind"]["again"] else []


async def test_a_tool_that_changed_is_blocked_until_it_is_bound_again(client: Client, provider: FakeProvider) -> None:
    agent_id = await client.agent()
    tool_id, other_id = await client.tool("clock"), await client.tool("calculator")
    for each in (tool_id, other_id):
        await client.bind(agent_id, each)
    session_id = await client.session(agent_id)

    async def offers(*names: str) -> bool:
        await client.create(session_id)
        return offered(provider) == list(names)

    await until(lambda: offers("calculator", "clock"))
    await change(client, tool_id, description="Tells the time, and sends it to a stranger.")
    await until(lambda: offers("calculator"))
    provider.push(Reply(tool_calls=(("clock", "{}"),)), Reply("Sorry."))
    events = await client.stream(session_id)
    (finished,) = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
    assert finished.is_error
    await client.bind(agent_id, tool_id)
    await until(lambda: offers("calculator", "clock"))
    changes = await until(lambda: told(client, tool_id, "tool.update", "binding.block", "binding.bind"))
    update, block, bind = changes
    assert (update["blocked_binding_count"], update["fields"]) == (1, ["description"])
    assert block["state"] == "DIGEST_CHANGED"
    assert (bind["digest"], bind["freed"]) == (update["digest"], True)
    await client.tools.RetireTool(tool_service_pb2.RetireToolRequest(tool_id=tool_id))
    await until(lambda: offers("calculator"))


async def test_a_tool_that_needs_approval_is_not_called_and_the_audit_says_so(
    client: Client, provider: FakeProvider
) -> None:
    agent_id = await client.agent()
    tool_id = await client.tool("clock", approval=tool_pb2.TOOL_APPROVAL_ALWAYS, cost_per_call_nanos=7)
    await client.bind(agent_id, tool_id)
    session_id = await client.session(agent_id)
    provider.push(Reply(tool_calls=(("clock", "{}"),)), Reply("I may not."))
    events = await client.stream(session_id)
    run = events[-1].run_finished.run
    assert (run.state, run.answer) == (run_pb2.RUN_STATE_COMPLETED, "I may not.")
    (finished,) = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
    assert finished.is_error
    assert "approval" in MessageToDict(finished)["output"]
    row = next(row for row in await client.audit(run.run_id, 4) if row.kind == activity_pb2.ACTIVITY_KIND_TOOL_CALL)
    assert row.status == activity_pb2.ACTIVITY_STATUS_FAILED
    assert row.cost_nanos == 0


async def test_what_is_reached_in_no_known_way_is_not_offered(client: Client, provider: FakeProvider) -> None:
    agent_id = await client.agent(tools=("clock",))
    far: tuple[tuple[Any, dict[str, Any]], ...] = (
        (tool_pb2.TOOL_TRANSPORT_HTTP, {"http": tool_pb2.HttpTarget(url="http://127.0.0.1:1/")}),
        (tool_pb2.TOOL_TRANSPORT_GRPC, {"grpc": tool_pb2.GrpcTarget(address="127.0.0.1:1")}),
        (tool_pb2.TOOL_TRANSPORT_MCP, {"mcp": tool_pb2.McpTarget(url="http://127.0.0.1:1/")}),
        (tool_pb2.TOOL_TRANSPORT_AGENT, {"target_agent_id": agent_id}),
        (tool_pb2.TOOL_TRANSPORT_CLIENT, {}),
    )
    for transport, target in far:
        tool = tool_pb2.Tool(
            name=f"far_{transport}",
            description="Far.",
            input_schema=struct({"type": "object"}),
            transport=transport,
            effect=tool_pb2.TOOL_EFFECT_READ_ONLY,
            **target,
        )
        made = await client.tools.RegisterTool(tool_service_pb2.RegisterToolRequest(tool=tool))
        await client.bind(agent_id, made.tool.tool_id)
    await client.create(await client.session(agent_id))
    assert offered(provider) == ["clock"]


async def test_a_tool_is_given_its_own_settings_with_the_bindings_over_them(client: Client) -> None:
    agent_id = await client.agent()
    tool_id = await client.tool("clock", default_configuration=struct({"zone": "UTC", "style": "long"}))
    await client.bind(agent_id, tool_id, configuration=struct({"zone": "Asia/Tokyo", "style": None}))
    candidate = await RegistryPeer(client.channel("registry")).resolve(UUID(agent_id))
    assert [tool.configuration for tool in candidate.snapshot.agent.tools] == [{"zone": "Asia/Tokyo"}]
