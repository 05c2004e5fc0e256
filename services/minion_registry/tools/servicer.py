"""Serves minion.registry.v1.ToolService."""

from typing import Any

import grpc
from minion.registry.v1 import tool_service_pb2 as pb
from minion.registry.v1.tool_service_pb2_grpc import ToolServiceServicer
from minion_grpc import wire

from minion_registry.tools import convert
from minion_registry.tools.service import Tools

Context = grpc.aio.ServicerContext[Any, Any]


class ToolServicer(ToolServiceServicer):
    """Serves minion.registry.v1.ToolService."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def RegisterTool(self, request: pb.RegisterToolRequest, context: Context) -> pb.RegisterToolResponse:
        tool_id, contents, key = await wire.off_loop(convert.register_from_proto, request, request.ByteSize())
        tool = await self._tools.register(tool_id, contents, key)
        return pb.RegisterToolResponse(tool=convert.tool_to_proto(tool))

    async def GetTool(self, request: pb.GetToolRequest, context: Context) -> pb.GetToolResponse:
        tool = await self._tools.get(convert.get_from_proto(request))
        return pb.GetToolResponse(tool=convert.tool_to_proto(tool))

    async def ListTools(self, request: pb.ListToolsRequest, context: Context) -> pb.ListToolsResponse:
        transport, size, token = convert.list_from_proto(request)
        tools, more = await self._tools.page(transport, size, token)
        size = wire.json_bytes(tool.contents.input_schema for tool in tools)
        return pb.ListToolsResponse(
            tools=await wire.off_loop(convert.tools_to_proto, tools, size), next_page_token=more
        )
