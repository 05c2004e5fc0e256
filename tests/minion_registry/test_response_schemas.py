"""LlmConfig.response_schema: checked, kept in revisions, given to the gateway."""

from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict
from minion.registry.v1 import agent_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion_testing.errors import refused

from tests.minion_registry.stage import Caller, struct

SCHEMA: dict[str, Any] = {
    "title": "Verdict",
    "type": "object",
    "properties": {"sure": {"type": "boolean"}, "why": {"$ref": "#/$defs/text"}},
    "required": ["sure"],
    "$defs": {"text": {"type": "string"}},
}


def asking(schema: dict[str, Any]) -> agent_pb2.LlmConfig:
    """A model that is asked for JSON."""
    return agent_pb2.LlmConfig(response_schema=struct(schema))


async def test_a_schema_is_kept_in_each_revision(tenant: Caller) -> None:
    made = await tenant.create(llm=asking(SCHEMA))
    assert MessageToDict(made.llm.response_schema) == SCHEMA
    changed = await tenant.agents.UpdateAgent(
        pb.UpdateAgentRequest(agent=agent_pb2.Agent(agent_id=made.agent_id), update_mask=FieldMask(paths=["llm"]))
    )
    assert not changed.agent.llm.HasField("response_schema")
    assert (await tenant.get(made.agent_id, revision=1)).llm == made.llm
    await tenant.agents.RollbackAgent(pb.RollbackAgentRequest(agent_id=made.agent_id, revision=1))
    resolved = await tenant.agents.ResolveAgent(pb.ResolveAgentRequest(agent_id=made.agent_id))
    assert resolved.resolved_agent.agent.llm == made.llm


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ({}, "agent.llm.response_schema.type"),
        ({"type": "string"}, "agent.llm.response_schema.type"),
        ({"type": "object", "properties": {"a": {"type": "text"}}}, "agent.llm.response_schema.properties.a.type"),
        ({"type": "object", "$ref": "https://example.com/schema"}, "agent.llm.response_schema"),
    ],
)
async def test_what_is_no_schema_is_refused_with_its_place(tenant: Caller, schema: dict[str, Any], field: str) -> None:
    made = await tenant.create()
    update = pb.UpdateAgentRequest(
        agent=agent_pb2.Agent(agent_id=made.agent_id, llm=asking(schema)), update_mask=FieldMask(paths=["llm"])
    )
    for write in (lambda: tenant.create(llm=asking(schema)), lambda: tenant.agents.UpdateAgent(update)):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TOOL_SCHEMA_INVALID") as refusal:
            await write()
        assert list(refusal.violations) == [field]
    assert await tenant.get(made.agent_id) == made


async def test_a_schema_has_64_kib_at_most(tenant: Caller) -> None:
    schema = {"type": "object", "description": "x" * (64 * 1024)}
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.create(llm=asking(schema))
    assert list(refusal.violations) == ["agent.llm.response_schema"]


async def test_pages_fit_into_a_message_whatever_schemas_they_hold(tenant: Caller) -> None:
    schema = {"type": "object", "enum": [{"n": [1] * 25_000}]}
    for _ in range(12):
        await tenant.create(llm=asking(schema))
    page = await tenant.agents.ListAgents(pb.ListAgentsRequest())
    assert 1 < len(page.agents) < 12
    assert page.ByteSize() < 3 * 1024 * 1024
