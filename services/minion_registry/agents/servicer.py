"""Serves minion.registry.v1.AgentService."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from minion.registry.v1 import agent_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion.registry.v1.agent_service_pb2_grpc import AgentServiceServicer
from minion_grpc import wire

from minion_registry.agents import convert
from minion_registry.agents.domain import Agent, AgentStatus
from minion_registry.agents.service import AgentChanges, Agents
from minion_registry.bindings import convert as bindings_convert
from minion_registry.bindings.service import Bindings
from minion_registry.cards.service import Cards

Context = grpc.aio.ServicerContext[Any, Any]


class AgentServicer(AgentServiceServicer):
    """Serves minion.registry.v1.AgentService: agents, their tools, and what happens to them."""

    def __init__(self, agents: Agents, bindings: Bindings, cards: Cards, changes: AgentChanges) -> None:
        self._agents = agents
        self._bindings = bindings
        self._cards = cards
        self._changes = changes

    async def CreateAgent(self, request: pb.CreateAgentRequest, context: Context) -> pb.CreateAgentResponse:
        agent_id, contents, key = await wire.off_loop(convert.create_from_proto, request, _json_bytes(request))
        agent = await self._agents.create(agent_id, contents, key)
        return pb.CreateAgentResponse(agent=await _written(agent))

    async def GetAgent(self, request: pb.GetAgentRequest, context: Context) -> pb.GetAgentResponse:
        named, revision = convert.get_from_proto(request)
        agent = await self._agents.get(named, revision)
        return pb.GetAgentResponse(agent=await _written(agent))

    async def ListAgents(self, request: pb.ListAgentsRequest, context: Context) -> pb.ListAgentsResponse:
        selected, size, token = convert.list_from_proto(request)
        agents, more = await self._agents.page(selected, size, token)
        size = convert.json_bytes(agents)
        return pb.ListAgentsResponse(
            agents=await wire.off_loop(convert.agents_to_proto, agents, size), next_page_token=more
        )

    async def SearchAgents(self, request: pb.SearchAgentsRequest, context: Context) -> pb.SearchAgentsResponse:
        words, selected, size, token = convert.search_from_proto(request)
        hits, more = await self._agents.search(words, selected, size, token)
        size = convert.json_bytes(hit.agent for hit in hits)
        return pb.SearchAgentsResponse(
            hits=await wire.off_loop(convert.hits_to_proto, hits, size), next_page_token=more
        )

    async def GetAgentCard(self, request: pb.GetAgentCardRequest, context: Context) -> pb.GetAgentCardResponse:
        card = await self._cards.get(convert.named_from_proto(request))
        return pb.GetAgentCardResponse(card=await wire.off_loop(wire.to_struct, card, wire.json_bytes((card,))))

    async def UpdateAgent(self, request: pb.UpdateAgentRequest, context: Context) -> pb.UpdateAgentResponse:
        agent_id, update, etag, key = await wire.off_loop(convert.update_from_proto, request, _json_bytes(request))
        agent = await self._agents.update(agent_id, update, etag, key)
        return pb.UpdateAgentResponse(agent=await _written(agent))

    async def RollbackAgent(self, request: pb.RollbackAgentRequest, context: Context) -> pb.RollbackAgentResponse:
        agent_id, revision, etag, key = convert.rollback_from_proto(request)
        agent = await self._agents.roll_back(agent_id, revision, etag, key)
        return pb.RollbackAgentResponse(agent=await _written(agent))

    async def DeleteAgent(self, request: pb.DeleteAgentRequest, context: Context) -> pb.DeleteAgentResponse:
        agent_id, etag, key = convert.versioned_from_proto(request)
        await self._agents.delete(agent_id, etag, key)
        return pb.DeleteAgentResponse()

    async def ActivateAgent(self, request: pb.ActivateAgentRequest, context: Context) -> pb.ActivateAgentResponse:
        agent_id, etag, key = convert.versioned_from_proto(request)
        agent = await self._agents.move(agent_id, AgentStatus.ACTIVE, etag, key)
        return pb.ActivateAgentResponse(agent=await _written(agent))

    async def DeactivateAgent(self, request: pb.DeactivateAgentRequest, context: Context) -> pb.DeactivateAgentResponse:
        agent_id, etag, key = convert.versioned_from_proto(request)
        agent = await self._agents.move(agent_id, AgentStatus.INACTIVE, etag, key)
        return pb.DeactivateAgentResponse(agent=await _written(agent))

    async def ArchiveAgent(self, request: pb.ArchiveAgentRequest, context: Context) -> pb.ArchiveAgentResponse:
        agent_id, etag, key = convert.versioned_from_proto(request)
        agent = await self._agents.move(agent_id, AgentStatus.ARCHIVED, etag, key)
        return pb.ArchiveAgentResponse(agent=await _written(agent))

    async def ListAgentRevisions(
        self, request: pb.ListAgentRevisionsRequest, context: Context
    ) -> pb.ListAgentRevisionsResponse:
        agent_id, size, token = convert.hanging_from_proto(request)
        revisions, more = await self._agents.revisions(agent_id, size, token)
        size = convert.json_bytes(revisions)
        return pb.ListAgentRevisionsResponse(
            revisions=await wire.off_loop(convert.agents_to_proto, revisions, size), next_page_token=more
        )

    async def BindTool(self, request: pb.BindToolRequest, context: Context) -> pb.BindToolResponse:
        agent_id, tool_id, configuration, expected_digest, key = bindings_convert.bind_from_proto(request)
        bound = await self._bindings.bind(agent_id, tool_id, configuration, expected_digest, key)
        size = bindings_convert.json_bytes([bound])
        return pb.BindToolResponse(agent_tool=await wire.off_loop(bindings_convert.agent_tool_to_proto, bound, size))

    async def UnbindTool(self, request: pb.UnbindToolRequest, context: Context) -> pb.UnbindToolResponse:
        agent_id, tool_id, key = bindings_convert.unbind_from_proto(request)
        await self._bindings.unbind(agent_id, tool_id, key)
        return pb.UnbindToolResponse()

    async def ListAgentTools(self, request: pb.ListAgentToolsRequest, context: Context) -> pb.ListAgentToolsResponse:
        agent_id, size, token = convert.hanging_from_proto(request)
        tools, more = await self._bindings.page(agent_id, size, token)
        size = bindings_convert.json_bytes(tools)
        return pb.ListAgentToolsResponse(
            agent_tools=await wire.off_loop(bindings_convert.agent_tools_to_proto, tools, size), next_page_token=more
        )

    async def ResolveAgent(self, request: pb.ResolveAgentRequest, context: Context) -> pb.ResolveAgentResponse:
        resolved = await self._bindings.resolve(convert.named_from_proto(request))
        size = bindings_convert.resolved_json_bytes(resolved)
        return pb.ResolveAgentResponse(
            resolved_agent=await wire.off_loop(bindings_convert.resolved_to_proto, resolved, size)
        )

    async def WatchAgents(
        self, request: pb.WatchAgentsRequest, context: Context
    ) -> AsyncIterator[pb.WatchAgentsResponse]:
        async with aclosing(self._changes.watch(request.cursor, include_tools=request.include_tools)) as changes:
            async for change in changes:
                yield convert.change_to_proto(change)


async def _written(agent: Agent) -> agent_pb2.Agent:
    return await wire.off_loop(convert.agent_to_proto, agent, convert.json_bytes([agent]))


def _json_bytes(request: pb.CreateAgentRequest | pb.UpdateAgentRequest) -> int:
    return request.agent.metadata.ByteSize() + request.agent.llm.response_schema.ByteSize()
