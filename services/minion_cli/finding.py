"""Finds agents and tools by id or name; tells what isn't there from what fails."""

from uuid import UUID

import grpc
from minion.registry.v1 import agent_pb2, agent_service_pb2, tool_pb2, tool_service_pb2

from minion_cli.connection import Services


async def find_agent(services: Services, name_or_id: str, revision: int = 0) -> agent_pb2.Agent:
    """Gets an agent by whichever of name and id is given; a UUID is an id, anything else a name."""
    agent_id, name = by_id_or_name(name_or_id)
    request = agent_service_pb2.GetAgentRequest(agent_id=agent_id, name=name, revision=revision)
    return (await services.agents.GetAgent(request)).agent


def is_id(text: str) -> bool:
    """Tells an id from a name; a name can't have the form of a UUID that starts with a digit, and few others do."""
    try:
        UUID(text)
    except ValueError:
        return False
    return len(text) == 36


async def find_tool(services: Services, name_or_id: str, version: int = 0) -> tool_pb2.Tool:
    """Gets a tool by whichever of name and id is given."""
    tool_id, name = by_id_or_name(name_or_id)
    request = tool_service_pb2.GetToolRequest(tool_id=tool_id, name=name, version=version)
    return (await services.tools.GetTool(request)).tool


def by_id_or_name(text: str) -> tuple[str, str]:
    """Gives the id and the name of which a text is one; the other is empty."""
    return (text, "") if is_id(text) else ("", text)


async def find_agent_named(services: Services, name: str) -> agent_pb2.Agent | None:
    """Gets an agent by its name, if there is one."""
    try:
        return (await services.agents.GetAgent(agent_service_pb2.GetAgentRequest(name=name))).agent
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return None
        raise


async def find_tool_named(services: Services, name: str) -> tool_pb2.Tool | None:
    """Gets a tool by its name, if there is one."""
    try:
        return (await services.tools.GetTool(tool_service_pb2.GetToolRequest(name=name))).tool
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return None
        raise
