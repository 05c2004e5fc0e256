"""Agents are asked for once, and what changes is known soon."""

from typing import Any

from minion.gateway.v1 import run_pb2
from minion.registry.v1 import agent_pb2, agent_service_pb2
from minion_testing.fake_provider import FakeProvider

from tests.minion_gateway.runs.stage import MODEL, Client, Stage, struct, until

RESOLVE = {
    "grpc_type": "unary",
    "grpc_service": "minion.registry.v1.AgentService",
    "grpc_method": "ResolveAgent",
}


def resolved(stage: Stage) -> float:
    return stage.services["registry"].metric("grpc_server_started_total", **RESOLVE) or 0.0


async def test_turns_ask_for_their_agent_only_when_it_changed(client: Client, stage: Stage) -> None:
    session_id = await client.conversation()
    before = resolved(stage)
    for _ in range(20):
        await client.create(session_id)
    # Once; and once more for each change that its making tells of, a moment later: created, activated.
    assert 1 <= resolved(stage) - before <= 3


async def test_a_change_is_felt_by_the_next_turns(client: Client, provider: FakeProvider) -> None:
    agent_id = await client.agent()
    session_id = await client.session(agent_id)
    first = await client.create(session_id)
    changed: Any = agent_service_pb2.UpdateAgentRequest(
        agent=agent_pb2.Agent(agent_id=agent_id, instructions="Be long.")
    )
    changed.update_mask.paths.append("instructions")
    await client.agents.UpdateAgent(changed)

    async def felt() -> run_pb2.Run | None:
        run = await client.create(session_id)
        return run if run.agent_revision > first.agent_revision else None

    await until(felt)
    assert provider.ledger.asked[-1].body["messages"][0]["content"] == "Be long."


async def test_a_tool_that_is_taken_away_is_offered_no_more(client: Client, provider: FakeProvider) -> None:
    agent_id = await client.agent()
    tool_id = await client.tool("clock")
    await client.bind(agent_id, tool_id)
    session_id = await client.session(agent_id)
    await client.create(session_id)
    assert len(provider.ledger.asked[-1].body["tools"]) == 1
    await client.agents.UnbindTool(agent_service_pb2.UnbindToolRequest(agent_id=agent_id, tool_id=tool_id))

    async def gone() -> bool:
        await client.create(session_id)
        return "tools" not in provider.ledger.asked[-1].body

    assert await until(gone)


async def test_an_answers_schema_reaches_the_provider(client: Client, provider: FakeProvider) -> None:
    agent_id = await client.agent()
    session_id = await client.session(agent_id)
    await client.create(session_id)
    assert "response_format" not in provider.ledger.asked[-1].body
    schema = {"title": "verdict", "type": "object", "properties": {"sure": {"type": "boolean"}}}
    llm = agent_pb2.LlmConfig(model=MODEL, response_schema=struct(schema))
    changed: Any = agent_service_pb2.UpdateAgentRequest(agent=agent_pb2.Agent(agent_id=agent_id, llm=llm))
    changed.update_mask.paths.append("llm")
    await client.agents.UpdateAgent(changed)

    async def asked_for() -> object:
        # The answer is as it comes: the fake provider knows no schema.
        assert (await client.create(session_id)).state == run_pb2.RUN_STATE_COMPLETED
        return provider.ledger.asked[-1].body.get("response_format")

    assert await until(asked_for) == {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}}
