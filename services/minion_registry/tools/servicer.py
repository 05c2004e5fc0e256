"""Serves minion.registry.v1.ToolService."""

from typing import Any

import grpc
from minion.registry.v1 import tool_pb2
from minion.registry.v1 import tool_service_pb2 as pb
from minion.registry.v1.tool_service_pb2_grpc import ToolServiceServicer
from minion_grpc import wire

from minion_registry.tools import convert
from minion_registry.tools.domain import Tool, ToolStatus
from minion_registry.tools.service import Tools

Context = grpc.aio.ServicerContext[Any, Any]


class ToolServicer(ToolServiceServicer):
    """Serves minion.registry.v1.ToolService."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def RegisterTool(self, request: pb.RegisterToolRequest, context: Context) -> pb.RegisterToolResponse:
        tool_id, contents, key = await wire.off_loop(convert.register_from_proto, request, request.ByteSize())
        tool = await self._tools.register(tool_id, contents, key)
        return pb.RegisterToolResponse(tool=await _written(tool))

    async def GetTool(self, request: pb.GetToolRequest, context: Context) -> pb.GetToolResponse:
        named, version = convert.get_from_proto(request)
        tool = await self._tools.get(named, version)
        return pb.GetToolResponse(tool=await _written(tool))

    async def ListTools(self, request: pb.ListToolsRequest, context: Context) -> pb.ListToolsResponse:
        selected, size, token = convert.list_from_proto(request)
        tools, more = await self._tools.page(selected, size, token)
        return pb.ListToolsResponse(
            tools=await wire.off_loop(convert.tools_to_proto, tools, convert.json_bytes(tools)), next_page_token=more
        )

    async def UpdateTool(self, request: pb.UpdateToolRequest, context: Context) -> pb.UpdateToolResponse:
        tool_id, changes, etag, key = await wire.off_loop(convert.update_from_proto, request, request.ByteSize())
        changed = await self._tools.update(tool_id, changes, etag, key)
        return await wire.off_loop(convert.updated_to_proto, changed, convert.json_bytes([changed.tool]))

    async def DeprecateTool(self, request: pb.DeprecateToolRequest, context: Context) -> pb.DeprecateToolResponse:
        tool_id, note, etag, key = convert.move_from_proto(request)
        changed = await self._tools.move(tool_id, ToolStatus.DEPRECATED, note, etag, key)
        return pb.DeprecateToolResponse(tool=await _written(changed.tool))

    async def RetireTool(self, request: pb.RetireToolRequest, context: Context) -> pb.RetireToolResponse:
        tool_id, note, etag, key = convert.move_from_proto(request)
        changed = await self._tools.move(tool_id, ToolStatus.RETIRED, note, etag, key)
        return pb.RetireToolResponse(
            tool=await _written(changed.tool), blocked_binding_count=changed.blocked_binding_count
        )

    async def ListToolVersions(
        self, request: pb.ListToolVersionsRequest, context: Context
    ) -> pb.ListToolVersionsResponse:
        tool_id, size, token = convert.versions_from_proto(request)
        versions, more = await self._tools.versions(tool_id, size, token)
        return pb.ListToolVersionsResponse(
            versions=await wire.off_loop(convert.tools_to_proto, versions, convert.json_bytes(versions)),
            next_page_token=more,
        )

    async def ValidateToolArguments(
        self, request: pb.ValidateToolArgumentsRequest, context: Context
    ) -> pb.ValidateToolArgumentsResponse:
        named, version, arguments = await wire.off_loop(convert.validate_from_proto, request, request.ByteSize())
        faults = await self._tools.validate(named, version, arguments)
        return await wire.off_loop(convert.faults_to_proto, faults, request.ByteSize())


async def _written(tool: Tool) -> tool_pb2.Tool:
    return await wire.off_loop(convert.tool_to_proto, tool, convert.json_bytes([tool]))
