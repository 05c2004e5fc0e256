"""Finds agents and tools by id or name; tells what isn't there from what fails."""

from uuid import UUID

import grpc
from minion.registry.v1 import agent_pb2, agent_service_pb2, tool_pb2, tool_service_pb2

from minion_cli.connection import Services


async def find_agent(services: Services, name_or_id: str, revision: int = 0) -> agent_pb2.Agent:
    """Gets an agent by whichever of name and id is given; a UUID is an id, anything else a name."""
    request = agent_service_pb2.GetAgentRequest(revision=revision)
    if is_id(name_or_id):
        request.agent_id = name_or_id
    else:
        request.name = name_or_id
    return (await services.agents.GetAgent(request)).agent


def is_id(text: str) -> bool:
    """Tells an id from a name; a name can't have the form of a UUID that starts with a digit, and few others do."""
    try:
        UUID(text)
    except ValueError:
        return False
    return len(text) == 36


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
