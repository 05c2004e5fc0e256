"""CreateAgent."""

from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from minion.registry.v1 import agent_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion_auth.authenticator import TENANT_METADATA
from minion_testing.errors import refused
from minion_testing.serving import Served
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller, agent, over, struct


async def test_an_agent_is_created_as_a_draft_with_all_that_it_was_given(tenant: Caller) -> None:
    wanted = agent_pb2.Agent(
        name="support",
        display_name="Support",
        description="Answers questions.",
        behavior_type="conversational",
        instructions="Be kind. 🙂",
        llm=agent_pb2.LlmConfig(model="local/stand-in", temperature=0.0, max_output_tokens=512),
        capabilities=["refunds", "shipping"],
        behavior=agent_pb2.BehaviorSettings(
            max_steps=3,
            max_duration=Duration(seconds=90, nanos=500_000_000),
            memory=agent_pb2.MemoryPolicy(
                recall=True,
                max_memories=7,
                min_score=-0.5,
                episodes=True,
                extract=True,
                extractor="facts-1",
                extract_after_messages=12,
            ),
            context=agent_pb2.ContextPolicy(token_budget=4_000, max_messages=20),
            summary=agent_pb2.SummaryPolicy(
                enabled=True, trigger_tokens=900, target_tokens=80, keep_messages=0, model="local/stand-in"
            ),
        ),
        metadata=struct({"team": "blue", "size": 3, "nested": {"list": [1.5, None, True, "x"]}}),
        labels={"tier": "gold", "region": ""},
    )
    created = (await tenant.agents.CreateAgent(pb.CreateAgentRequest(agent=wanted))).agent
    assert (created.status, created.revision) == (agent_pb2.AGENT_STATUS_DRAFT, 1)
    assert created.agent_id
    assert created.etag
    assert created.create_time == created.update_time
    given = agent_pb2.Agent()
    given.CopyFrom(created)
    decided: tuple[Any, ...] = ("agent_id", "status", "revision", "live_revision", "latest_revision", "etag")
    for field in (*decided, "create_time", "update_time"):
        given.ClearField(field)
    assert given == wanted
    assert await tenant.get(created.agent_id) == created


async def test_what_the_service_decides_is_ignored(tenant: Caller) -> None:
    created = await tenant.create(status=agent_pb2.AGENT_STATUS_ACTIVE, revision=9, etag="x")
    assert (created.status, created.revision) == (agent_pb2.AGENT_STATUS_DRAFT, 1)


async def test_a_caller_may_propose_the_id(tenant: Caller) -> None:
    proposed = str(uuid7())
    assert (await tenant.create(agent_id=proposed)).agent_id == proposed


async def test_a_capability_said_twice_is_kept_once(tenant: Caller) -> None:
    assert (await tenant.create(capabilities=["a", "b", "a"])).capabilities == ["a", "b"]


async def test_a_repeat_returns_the_first_result_and_creates_nothing(tenant: Caller) -> None:
    request = pb.CreateAgentRequest(
        agent=agent(metadata=struct({"a": 1}), behavior=agent_pb2.BehaviorSettings(max_duration=Duration(seconds=5))),
        request_id=str(uuid7()),
    )
    first = await tenant.agents.CreateAgent(request)
    await tenant.activate(first.agent.agent_id)
    assert await tenant.agents.CreateAgent(request) == first
    assert len((await tenant.agents.ListAgents(pb.ListAgentsRequest())).agents) == 1


async def test_the_same_request_id_with_another_body_is_refused(tenant: Caller) -> None:
    request_id = str(uuid7())
    await tenant.agents.CreateAgent(pb.CreateAgentRequest(agent=agent(), request_id=request_id))
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await tenant.agents.CreateAgent(pb.CreateAgentRequest(agent=agent(), request_id=request_id))


async def test_two_tenants_may_use_the_same_name_and_request_id(tenant: Caller, stranger: Caller) -> None:
    request = pb.CreateAgentRequest(agent=agent(name="same"), request_id=str(uuid7()))
    mine = await tenant.agents.CreateAgent(request)
    theirs = await stranger.agents.CreateAgent(request)
    assert mine.agent.agent_id != theirs.agent.agent_id


async def test_a_name_or_id_that_is_taken_is_refused(tenant: Caller) -> None:
    first = await tenant.create(name="taken")
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "AGENT_NAME_TAKEN") as refusal:
        await tenant.create(name="taken")
    assert refusal.metadata == {"name": "taken"}
    assert refusal.domain == "minion.registry"
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "AGENT_NAME_TAKEN"):
        await tenant.create(agent_id=first.agent_id)


async def test_a_tenant_that_nobody_made_has_neither_agents_nor_tools(registry: Served) -> None:
    nobody = uuid4()
    async with registry.acting(nobody) as channel:
        for write in (over(channel, nobody).create, over(channel, nobody).register):
            async with refused(grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND"):
                await write()


async def test_an_operator_names_the_tenant(registry: Served, tenant: Caller, operator: Caller) -> None:
    request = pb.CreateAgentRequest(agent=agent())
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TENANT_MISSING"):
        await operator.agents.CreateAgent(request)
    created = await operator.agents.CreateAgent(request, metadata=((TENANT_METADATA, str(tenant.tenant_id)),))
    assert await tenant.get(created.agent.agent_id) == created.agent


def llm(**fields: object) -> dict[str, object]:
    return {"llm": agent_pb2.LlmConfig(**fields)}  # type: ignore[arg-type]


def behavior(**fields: object) -> dict[str, object]:
    return {"behavior": agent_pb2.BehaviorSettings(**fields)}  # type: ignore[arg-type]


def memory(**fields: object) -> dict[str, object]:
    return behavior(memory=agent_pb2.MemoryPolicy(**fields))  # type: ignore[arg-type]


def summary(**fields: object) -> dict[str, object]:
    return behavior(summary=agent_pb2.SummaryPolicy(**fields))  # type: ignore[arg-type]


LIMITS = [
    ({"agent_id": "7"}, "agent.agent_id"),
    ({"name": ""}, "agent.name"),
    ({"name": "a" * 64}, "agent.name"),
    ({"name": "Support"}, "agent.name"),
    ({"name": "1st"}, "agent.name"),
    ({"name": "a\n"}, "agent.name"),
    ({"display_name": "x" * 201}, "agent.display_name"),
    ({"display_name": "\0"}, "agent.display_name"),
    ({"description": "x" * 2_001}, "agent.description"),
    ({"behavior_type": "supervisor"}, "agent.behavior_type"),
    ({"behavior_type": ""}, "agent.behavior_type"),
    ({"instructions": "x" * 100_001}, "agent.instructions"),
    (llm(model="x" * 201), "agent.llm.model"),
    (llm(temperature=2.01), "agent.llm.temperature"),
    (llm(temperature=-0.01), "agent.llm.temperature"),
    (llm(temperature=float("nan")), "agent.llm.temperature"),
    (llm(max_output_tokens=200_001), "agent.llm.max_output_tokens"),
    (llm(max_output_tokens=-1), "agent.llm.max_output_tokens"),
    ({"capabilities": [str(index) for index in range(51)]}, "agent.capabilities"),
    ({"capabilities": [""]}, "agent.capabilities[0]"),
    ({"capabilities": ["fine", "x" * 65]}, "agent.capabilities[1]"),
    (behavior(max_steps=101), "agent.behavior.max_steps"),
    (behavior(max_steps=-1), "agent.behavior.max_steps"),
    (behavior(max_duration=Duration(nanos=999_000_000)), "agent.behavior.max_duration"),
    (behavior(max_duration=Duration(seconds=3_601)), "agent.behavior.max_duration"),
    (behavior(max_duration=Duration(seconds=2**62)), "agent.behavior.max_duration"),
    (memory(max_memories=51), "agent.behavior.memory.max_memories"),
    (memory(min_score=1.01), "agent.behavior.memory.min_score"),
    (memory(extractor="x" * 64), "agent.behavior.memory.extractor"),
    (memory(extractor="\0"), "agent.behavior.memory.extractor"),
    (memory(extract_after_messages=1), "agent.behavior.memory.extract_after_messages"),
    (memory(extract_after_messages=-1), "agent.behavior.memory.extract_after_messages"),
    (memory(extract_after_messages=1_001), "agent.behavior.memory.extract_after_messages"),
    (summary(trigger_tokens=255), "agent.behavior.summary.trigger_tokens"),
    (summary(trigger_tokens=-1), "agent.behavior.summary.trigger_tokens"),
    (summary(trigger_tokens=1_000_001), "agent.behavior.summary.trigger_tokens"),
    (summary(target_tokens=63), "agent.behavior.summary.target_tokens"),
    (summary(target_tokens=-1), "agent.behavior.summary.target_tokens"),
    (summary(target_tokens=16_001), "agent.behavior.summary.target_tokens"),
    (summary(keep_messages=-1), "agent.behavior.summary.keep_messages"),
    (summary(keep_messages=1_001), "agent.behavior.summary.keep_messages"),
    (summary(model="x" * 201), "agent.behavior.summary.model"),
    (summary(model="\0"), "agent.behavior.summary.model"),
    (behavior(context=agent_pb2.ContextPolicy(token_budget=255)), "agent.behavior.context.token_budget"),
    (behavior(context=agent_pb2.ContextPolicy(token_budget=1_000_001)), "agent.behavior.context.token_budget"),
    (behavior(context=agent_pb2.ContextPolicy(max_messages=1_001)), "agent.behavior.context.max_messages"),
    ({"metadata": struct({"x": "y" * 16_384})}, "agent.metadata"),
    ({"metadata": struct({"x": float("inf")})}, "agent.metadata.x"),
    ({"labels": {str(index): "" for index in range(33)}}, "agent.labels"),
    ({"labels": {"": "x"}}, "agent.labels['']"),
    ({"labels": {"x" * 64: ""}}, f"agent.labels['{'x' * 63}']"),
    ({"labels": {"k": "x" * 64}}, "agent.labels['k']"),
]


@pytest.mark.parametrize(("fields", "field"), LIMITS, ids=[f"{index}-{limit[1]}" for index, limit in enumerate(LIMITS)])
async def test_a_field_beyond_its_limit_is_named(tenant: Caller, fields: dict[str, object], field: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.create(**fields)
    assert list(refusal.violations) == [field]


async def test_all_faults_are_told_at_once(tenant: Caller) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.agents.CreateAgent(pb.CreateAgentRequest(request_id="x"))
    assert set(refusal.violations) == {"agent.name", "agent.behavior_type", "request_id"}


async def test_limits_are_inclusive(tenant: Caller) -> None:
    await tenant.create(
        name="a" * 63,
        display_name="é" * 200,
        description="x" * 2_000,
        instructions="x" * 100_000,
        llm=agent_pb2.LlmConfig(model="x" * 200, temperature=2.0, max_output_tokens=200_000),
        capabilities=[f"{index:064}" for index in range(50)],
        behavior=agent_pb2.BehaviorSettings(
            max_steps=100,
            max_duration=Duration(seconds=3_600),
            memory=agent_pb2.MemoryPolicy(
                max_memories=50, min_score=1.0, extractor="x" * 63, extract_after_messages=1_000
            ),
            context=agent_pb2.ContextPolicy(token_budget=1_000_000, max_messages=1_000),
            summary=agent_pb2.SummaryPolicy(
                trigger_tokens=1_000_000, target_tokens=16_000, keep_messages=1_000, model="x" * 200
            ),
        ),
        labels={f"{index:063}": "v" * 63 for index in range(32)},
    )
    await tenant.create(
        behavior=agent_pb2.BehaviorSettings(
            memory=agent_pb2.MemoryPolicy(extract_after_messages=2),
            summary=agent_pb2.SummaryPolicy(trigger_tokens=256, target_tokens=64, keep_messages=0),
        ),
    )


async def test_no_messages_kept_is_another_wish_than_none_told(tenant: Caller) -> None:
    kept = await tenant.create(**summary(enabled=True, keep_messages=0))
    assert kept.behavior.summary.HasField("keep_messages")
    left = await tenant.create(**summary(enabled=True))
    assert not left.behavior.summary.HasField("keep_messages")
