"""GetAgentCard: read as strictly as A2A's own library reads it."""

from typing import Any

import grpc
import pytest
from a2a.types import a2a_pb2
from google.api import field_behavior_pb2  # type: ignore[import-untyped]
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from minion.registry.v1 import agent_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion_registry.settings import RegistrySettings
from minion_settings import SettingsError
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import serve
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller, calling, struct


def parsed(answer: pb.GetAgentCardResponse) -> a2a_pb2.AgentCard:
    """Reads a card; fields that A2A doesn't know are faults."""
    return ParseDict(MessageToDict(answer.card), a2a_pb2.AgentCard())


def missing(message: Message, place: str = "card") -> list[str]:
    """Lists the fields that A2A requires and that have no value."""
    faults = []
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        required = field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
        if required and not (message.HasField(field.name) if _is_single_message(field) else value):
            faults.append(f"{place}.{field.name}")
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for each in [value] if _is_single_message(field) else value:
                faults += missing(each, f"{place}.{field.name}") if each.ListFields() else []
    return faults


def _is_single_message(field: Any) -> bool:
    return field.message_type is not None and not field.is_repeated


async def card(caller: Caller, **fields: str) -> a2a_pb2.AgentCard:
    """The card of an agent."""
    return parsed(await caller.agents.GetAgentCard(pb.GetAgentCardRequest(**fields)))


async def test_a_card_says_what_the_live_revision_can_do(tenant: Caller) -> None:
    made = await tenant.create(
        name="support", display_name="Support", description="Answers questions.", capabilities=["refunds", "parcels"]
    )
    tool = await tenant.register(name="now", description="Tells the time.")
    await tenant.bind(made.agent_id, tool.tool_id)
    await tenant.activate(made.agent_id)
    found = await card(tenant, name="support")
    assert found == await card(tenant, agent_id=made.agent_id)
    assert (found.name, found.description, found.version) == ("Support", "Answers questions.", "1")
    assert [(skill.id, skill.name) for skill in found.skills] == [
        ("capability/refunds", "refunds"),
        ("capability/parcels", "parcels"),
        ("tool/now", "now"),
    ]
    assert found.skills[2].description == "Tells the time."
    assert found.capabilities.streaming
    assert found.security_schemes["bearer"].http_auth_security_scheme.scheme == "bearer"
    assert list(found.security_requirements[0].schemes) == ["bearer"]
    assert list(found.default_output_modes) == ["text/plain"]
    # Nobody told the registry where agents are reached.
    assert missing(found) == ["card.supported_interfaces"]


async def test_a_card_names_what_is_required_of_an_agent_that_says_little(tenant: Caller) -> None:
    made = await tenant.create(
        name="bare", llm=agent_pb2.LlmConfig(response_schema=struct({"type": "object", "properties": {}}))
    )
    await tenant.activate(made.agent_id)
    found = await card(tenant, name="bare")
    assert missing(found) == ["card.supported_interfaces"]
    assert (found.name, len(found.skills)) == ("bare", 1)
    assert list(found.default_output_modes) == ["application/json"]


async def test_a_card_leaves_blocked_tools_out(tenant: Caller, postgres: ClonedDatabase) -> None:
    made = await tenant.create()
    tool = await tenant.register(name="kept"), await tenant.register(name="changed")
    for bound in tool:
        await tenant.bind(made.agent_id, bound.tool_id)
    await tenant.activate(made.agent_id)
    async with await postgres.connect("registry", "owner") as database:
        await database.execute(
            "UPDATE registry.tools SET digest = repeat('0', 64) WHERE tool_id = $1::text::uuid", tool[1].tool_id
        )
    found = await card(tenant, agent_id=made.agent_id)
    assert [skill.name for skill in found.skills] == ["kept"]


async def test_a_card_says_where_agents_are_reached(postgres: ClonedDatabase) -> None:
    async with (
        serve("registry", postgres, a2a_url="https://agents.example/a2a/{agent_id}") as registry,
        calling(registry) as tenant,
    ):
        made = await tenant.create()
        await tenant.activate(made.agent_id)
        found = await card(tenant, agent_id=made.agent_id)
    assert missing(found) == []
    assert {interface.url for interface in found.supported_interfaces} == {
        f"https://agents.example/a2a/{made.agent_id}"
    }
    assert [interface.protocol_binding for interface in found.supported_interfaces] == ["JSONRPC", "HTTP+JSON"]
    assert {interface.protocol_version for interface in found.supported_interfaces} == {"1.0"}


async def test_only_active_agents_of_the_tenant_have_a_card(tenant: Caller, stranger: Caller) -> None:
    made = await tenant.create()
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "AGENT_STATUS_UNSUITABLE") as refusal:
        await card(tenant, agent_id=made.agent_id)
    assert refusal.metadata == {"agent_id": made.agent_id, "status": "DRAFT"}
    await tenant.activate(made.agent_id)
    for caller, named in ((stranger, made.agent_id), (tenant, str(uuid7()))):
        async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND") as refusal:
            await card(caller, agent_id=named)
        assert refusal.metadata == {"agent_id": named}
    for fields in ({}, {"agent_id": made.agent_id, "name": made.name}):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
            await card(tenant, **fields)
        assert set(refusal.violations) == {"agent_id", "name"}


@pytest.mark.parametrize(
    "url",
    [
        "agents.example/{agent_id}",
        "ftp://agents.example/{agent_id}",
        "https://agents.example/",
        "https://agents.example/{agent}",
        "https://agents.example/{agent_id}/{agent_id}",
        "https://user:word@agents.example/{agent_id}",
        "https://{agent_id}.example/",
    ],
)
def test_an_address_that_is_none_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(SettingsError) as raised:
        RegistrySettings.load(
            {
                "MINION_REGISTRY_A2A_URL": url,
                "MINION_AUTH_MODE": "disabled",
                "MINION_DATABASE_URL": "postgresql://localhost/minion",
            }
        )
    assert [fault.variable for fault in raised.value.faults] == [RegistrySettings.variable("a2a_url")]
