"""What the registry's tests say often: callers, agents, tools."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import grpc
from google.protobuf.struct_pb2 import Struct
from minion.registry.v1 import agent_pb2, agent_service_pb2, tool_pb2, tool_service_pb2
from minion.registry.v1.agent_service_pb2_grpc import AgentServiceStub
from minion.registry.v1.api_key_service_pb2_grpc import ApiKeyServiceStub
from minion.registry.v1.rollout_service_pb2_grpc import RolloutServiceStub
from minion.registry.v1.tenant_service_pb2_grpc import TenantServiceStub
from minion.registry.v1.tool_service_pb2_grpc import ToolServiceStub
from minion_testing.serving import Served
from minion_testing.tenants import Tenant, new_tenant

if TYPE_CHECKING:
    from minion.registry.v1.agent_service_pb2_grpc import AgentServiceAsyncStub
    from minion.registry.v1.api_key_service_pb2_grpc import ApiKeyServiceAsyncStub
    from minion.registry.v1.rollout_service_pb2_grpc import RolloutServiceAsyncStub
    from minion.registry.v1.tenant_service_pb2_grpc import TenantServiceAsyncStub
    from minion.registry.v1.tool_service_pb2_grpc import ToolServiceAsyncStub


@dataclass(frozen=True, slots=True)
class Caller:
    """The registry as one caller sees it."""

    tenant_id: UUID
    agents: "AgentServiceAsyncStub"
    tools: "ToolServiceAsyncStub"
    api_keys: "ApiKeyServiceAsyncStub"
    tenants: "TenantServiceAsyncStub"
    rollouts: "RolloutServiceAsyncStub"

    async def create(self, **fields: Any) -> agent_pb2.Agent:
        """Creates an agent."""
        request = agent_service_pb2.CreateAgentRequest(agent=agent(**fields))
        return (await self.agents.CreateAgent(request)).agent

    async def register(self, **fields: Any) -> tool_pb2.Tool:
        """Registers a tool."""
        return (await self.tools.RegisterTool(tool_service_pb2.RegisterToolRequest(tool=tool(**fields)))).tool

    async def bind(self, agent_id: str, tool_id: str, **fields: Any) -> agent_pb2.AgentTool:
        """Binds a tool."""
        request = agent_service_pb2.BindToolRequest(agent_id=agent_id, tool_id=tool_id, **fields)
        return (await self.agents.BindTool(request)).agent_tool

    async def activate(self, agent_id: str) -> agent_pb2.Agent:
        """Activates an agent."""
        return (await self.agents.ActivateAgent(agent_service_pb2.ActivateAgentRequest(agent_id=agent_id))).agent

    async def deactivate(self, agent_id: str) -> agent_pb2.Agent:
        """Deactivates an agent."""
        return (await self.agents.DeactivateAgent(agent_service_pb2.DeactivateAgentRequest(agent_id=agent_id))).agent

    async def archive(self, agent_id: str) -> agent_pb2.Agent:
        """Archives an agent."""
        return (await self.agents.ArchiveAgent(agent_service_pb2.ArchiveAgentRequest(agent_id=agent_id))).agent

    async def get(self, agent_id: str, revision: int = 0) -> agent_pb2.Agent:
        """Reads an agent."""
        request = agent_service_pb2.GetAgentRequest(agent_id=agent_id, revision=revision)
        return (await self.agents.GetAgent(request)).agent


def over(channel: grpc.aio.Channel, tenant_id: UUID) -> Caller:
    """The registry over a channel."""
    return Caller(
        tenant_id,
        AgentServiceStub(channel),
        ToolServiceStub(channel),
        ApiKeyServiceStub(channel),
        TenantServiceStub(channel),
        RolloutServiceStub(channel),
    )


@asynccontextmanager
async def calling(registry: Served, tenant: Tenant | None = None) -> AsyncIterator[Caller]:
    """Calls with the key of a tenant, a fresh one unless it is given."""
    tenant = tenant or await new_tenant(registry)
    async with registry.channel(tenant.api_key) as channel:
        yield over(channel, tenant.tenant_id)


def agent(**fields: Any) -> agent_pb2.Agent:
    """An agent to create; what is not given is filled in."""
    return agent_pb2.Agent(**{"name": f"a-{uuid4().hex[:12]}", "behavior_type": "tool_use", **fields})


def tool(**fields: Any) -> tool_pb2.Tool:
    """A tool to register; what is not given is filled in."""
    defaults = {
        "name": f"t_{uuid4().hex[:12]}",
        "description": "Tells the time.",
        "input_schema": struct({"type": "object"}),
        "transport": tool_pb2.TOOL_TRANSPORT_BUILTIN,
        "builtin": "clock",
        "effect": tool_pb2.TOOL_EFFECT_READ_ONLY,
    }
    return tool_pb2.Tool(**{**defaults, **fields})


def struct(values: dict[str, Any]) -> Struct:
    """A JSON object on the wire."""
    made = Struct()
    made.update(values)
    return made
