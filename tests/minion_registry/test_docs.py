"""The examples of docs/registry.md on agents and their tools work, in the order in which they stand there."""

import re
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from minion.registry.v1 import agent_service_pb2, tool_service_pb2
from minion_testing.examples import as_json

from tests.minion_registry.stage import Caller

_EXAMPLE = re.compile(r"^grpcurl .*-d '(.*)' localhost:50051 minion\.registry\.v1\.(Agent|Tool)Service/(\w+)$", re.M)


async def test_every_rpc_on_agents_has_an_example_that_works(tenant: Caller) -> None:
    text = (Path(__file__).parents[2] / "docs" / "registry.md").read_text()
    examples: list[tuple[str, str, str]] = _EXAMPLE.findall(text)
    modules: dict[str, Any] = {"Agent": agent_service_pb2, "Tool": tool_service_pb2}
    stubs: dict[str, Any] = {"Agent": tenant.agents, "Tool": tenant.tools}
    service = agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"]
    assert {name for _, noun, name in examples if noun == "Agent"} == {method.name for method in service.methods}
    values: dict[str, str] = {}
    answers: dict[str, Any] = {}
    for body, noun, name in examples:
        filled = re.sub(r"\$[A-Z]+", lambda variable: values[variable.group()], body)
        request = json_format.Parse(as_json(filled), getattr(modules[noun], f"{name}Request")())
        call = getattr(stubs[noun], name)(request)
        if name == "WatchAgents":
            answers[name] = await call.read()
            call.cancel()
        else:
            answers[name] = await call
        if name == "CreateAgent":
            values["$AGENT"] = answers[name].agent.agent_id
        elif name == "RegisterTool":
            values["$TOOL"] = answers[name].tool.tool_id
    assert [hit.agent.agent_id for hit in answers["SearchAgents"].hits] == [values["$AGENT"]]
    assert answers["RollbackAgent"].agent.instructions == "Be brief."
