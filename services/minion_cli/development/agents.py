"""The agents that a stack comes with, and the gateway's own functions registered as their tools."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from minion.registry.v1 import agent_pb2, agent_service_pb2, tool_pb2, tool_service_pb2
from minion_grpc import peer_errors
from uuid_utils.compat import uuid7

from minion_cli.connection import Services


@dataclass(frozen=True, slots=True)
class Builtin:
    """A function of the gateway as a tool: when to call it, its arguments, and what calling it does to the world."""

    name: str
    description: str
    effect: "tool_pb2.ToolEffect.ValueType"
    properties: Mapping[str, Mapping[str, object]]
    required: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """An agent that a stack is to have; it may call every builtin tool."""

    name: str
    display_name: str
    description: str
    instructions: str


_READ_ONLY: Final = tool_pb2.TOOL_EFFECT_READ_ONLY
_IDEMPOTENT: Final = tool_pb2.TOOL_EFFECT_IDEMPOTENT

BUILTINS: Final = (
    Builtin(
        "clock",
        "Tells the current date and time. Call it whenever the answer depends on now.",
        _READ_ONLY,
        {"timezone": {"type": "string", "description": "IANA name such as Europe/Berlin; UTC when not given."}},
    ),
    Builtin(
        "calculator",
        "Computes an arithmetic expression exactly. Call it instead of computing yourself.",
        _READ_ONLY,
        {"expression": {"type": "string", "description": "Such as (17 + 4) * 2.", "minLength": 1, "maxLength": 500}},
        ("expression",),
    ),
    Builtin(
        "remember",
        "Keeps something about the user for all later conversations. Call it for each fact or preference told.",
        _IDEMPOTENT,
        {
            "content": {
                "type": "string",
                "description": "What to keep, in the user's own words where possible.",
                "minLength": 1,
                "maxLength": 4_000,
            },
            "type": {"type": "string", "enum": ["fact", "preference", "context", "skill"]},
            "key": {
                "type": "string",
                "description": "What it is filed under, such as favourite_drink; replaces what is kept there.",
                "maxLength": 200,
            },
        },
        ("content",),
    ),
    Builtin(
        "recall",
        "Searches what was kept about the user. Call it when what you were given of them does not answer.",
        _READ_ONLY,
        {
            "query": {"type": "string", "description": "What to look for.", "minLength": 1, "maxLength": 4_000},
            "limit": {"type": "integer", "minimum": 1, "maximum": 20},
        },
        ("query",),
    ),
    Builtin(
        "workspace",
        "Reads and writes notes of this conversation, by key.",
        _IDEMPOTENT,
        {
            "operation": {"type": "string", "enum": ["get", "set", "list"]},
            "key": {"type": "string", "minLength": 1, "maxLength": 200},
            "value": {"description": "What to write; any JSON."},
        },
        ("operation",),
    ),
)

_INSTRUCTIONS: Final = (
    "You are a helpful assistant. Use the calculator for arithmetic and the clock for dates and times. When the user "
    "tells you something about themselves, keep it with the remember tool, one call for each thing. Use what you "
    "remember of the user in your answers. Be brief."
)

DEMO_AGENT: Final = AgentPlan(
    "demo", "Demo agent", "An assistant with a memory, a calculator, a clock and a workspace.", _INSTRUCTIONS
)


async def registered(services: Services, plan: AgentPlan) -> agent_pb2.Agent:
    """Gives the tenant's agent of that name; makes it, with its tools, and activates it where there is none.

    One that was left as a draft half-way is finished; one in any other state is as its owner wants it.
    """
    agent = await _found(services, plan.name) or await _created(services, plan)
    if agent.status != agent_pb2.AGENT_STATUS_DRAFT:
        return agent
    tools = await asyncio.gather(*(_tool(services, builtin) for builtin in BUILTINS))
    for tool in tools:
        await services.agents.BindTool(
            agent_service_pb2.BindToolRequest(agent_id=agent.agent_id, tool_id=tool.tool_id, request_id=str(uuid7()))
        )
    request = agent_service_pb2.ActivateAgentRequest(agent_id=agent.agent_id, request_id=str(uuid7()))
    return (await services.agents.ActivateAgent(request)).agent


async def _found(services: Services, name: str) -> agent_pb2.Agent | None:
    try:
        return (await services.agents.GetAgent(agent_service_pb2.GetAgentRequest(name=name))).agent
    except grpc.aio.AioRpcError as error:
        if peer_errors.reason_of(error) == "AGENT_NOT_FOUND":
            return None
        raise


async def _created(services: Services, plan: AgentPlan) -> agent_pb2.Agent:
    agent = agent_pb2.Agent(
        name=plan.name,
        display_name=plan.display_name,
        description=plan.description,
        behavior_type="tool_use",
        instructions=plan.instructions,
        behavior=agent_pb2.BehaviorSettings(memory=agent_pb2.MemoryPolicy(recall=True)),
        capabilities=["memory", "arithmetic", "time"],
    )
    request = agent_service_pb2.CreateAgentRequest(agent=agent, request_id=str(uuid7()))
    return (await services.agents.CreateAgent(request)).agent


async def _tool(services: Services, builtin: Builtin) -> tool_pb2.Tool:
    tool = tool_pb2.Tool(
        name=builtin.name,
        description=builtin.description,
        transport=tool_pb2.TOOL_TRANSPORT_BUILTIN,
        builtin=builtin.name,
        effect=builtin.effect,
        input_schema=ParseDict(
            {
                "type": "object",
                "properties": {name: dict(schema) for name, schema in builtin.properties.items()},
                "required": list(builtin.required),
                "additionalProperties": False,
            },
            Struct(),
        ),
    )
    try:
        request = tool_service_pb2.RegisterToolRequest(tool=tool, request_id=str(uuid7()))
        return (await services.tools.RegisterTool(request)).tool
    except grpc.aio.AioRpcError as error:
        if peer_errors.reason_of(error) != "TOOL_NAME_TAKEN":
            raise
    return (await services.tools.GetTool(tool_service_pb2.GetToolRequest(name=builtin.name))).tool
