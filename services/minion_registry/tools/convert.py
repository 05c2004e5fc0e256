"""Between the contract's tools and ours."""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from minion.registry.v1 import tool_pb2
from minion.registry.v1 import tool_service_pb2 as pb
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key
from uuid_utils.compat import uuid7

from minion_registry import requests
from minion_registry.tools.domain import BUILTINS, Tool, ToolContents, ToolEffect, ToolName, ToolTransport

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SCHEMA_BYTES = 64 * 1024
_SHORTEST = timedelta(milliseconds=10)
_LONGEST = timedelta(minutes=10)
_DEAREST = 10**15

_TRANSPORTS: Mapping[tool_pb2.ToolTransport.ValueType, ToolTransport] = {
    tool_pb2.TOOL_TRANSPORT_BUILTIN: ToolTransport.BUILTIN,
}
_EFFECTS: Mapping[tool_pb2.ToolEffect.ValueType, ToolEffect] = {
    tool_pb2.TOOL_EFFECT_READ_ONLY: ToolEffect.READ_ONLY,
    tool_pb2.TOOL_EFFECT_IDEMPOTENT: ToolEffect.IDEMPOTENT,
    tool_pb2.TOOL_EFFECT_SIDE_EFFECT: ToolEffect.SIDE_EFFECT,
}
_TRANSPORTS_TO_PROTO = {transport: value for value, transport in _TRANSPORTS.items()}
_EFFECTS_TO_PROTO = {effect: value for value, effect in _EFFECTS.items()}


def register_from_proto(request: pb.RegisterToolRequest) -> tuple[UUID, ToolContents, Key | None]:
    """Reads a tool that is to be. Raises InvalidArgument with all faults; the schema's own are not looked for here."""
    violations = Violations()
    tool = request.tool
    tool_id = requests.identifier_or_new(violations, "tool.tool_id", tool.tool_id, uuid7())
    contents = ToolContents(
        name=tool.name,
        description=violations.length("tool.description", tool.description, minimum=1, maximum=4_000),
        input_schema=requests.json_object(violations, "tool.input_schema", tool.input_schema, maximum=_SCHEMA_BYTES),
        transport=_TRANSPORTS.get(tool.transport, ToolTransport.BUILTIN),
        builtin=tool.builtin,
        effect=_EFFECTS.get(tool.effect, ToolEffect.SIDE_EFFECT),
        time_limit=_time_limit(violations, tool),
        cost_per_call_nanos=tool.cost_per_call_nanos,
        labels=requests.labels(violations, "tool.labels", tool.labels),
    )
    if not _NAME.fullmatch(tool.name):
        violations.add("tool.name", "must be 1 to 64 characters of a-z, 0-9 and '_', starting with a letter")
    if tool.transport not in _TRANSPORTS:
        violations.add("tool.transport", "must be BUILTIN")
    if tool.builtin not in BUILTINS:
        violations.add("tool.builtin", f"must be one of {', '.join(BUILTINS)}")
    if tool.effect not in _EFFECTS:
        violations.add("tool.effect", "must be READ_ONLY, IDEMPOTENT or SIDE_EFFECT")
    violations.between("tool.cost_per_call_nanos", tool.cost_per_call_nanos, minimum=0, maximum=_DEAREST)
    key = requests.key(violations, request)
    violations.raise_if_any()
    return tool_id, contents, key


def get_from_proto(request: pb.GetToolRequest) -> ToolName:
    """Reads which tool is meant. Raises InvalidArgument with all faults."""
    violations = Violations()
    requests.either(violations, {"tool_id": request.tool_id, "name": request.name})
    tool_id = violations.optional_identifier("tool_id", request.tool_id)
    violations.length("name", request.name, maximum=64)
    violations.raise_if_any()
    return ToolName(tool_id=tool_id, name=request.name or None)


def list_from_proto(request: pb.ListToolsRequest) -> tuple[ToolTransport | None, int, str]:
    """Reads the filter, the page size and the token. Raises InvalidArgument with all faults."""
    violations = Violations()
    transport = _TRANSPORTS.get(request.transport)
    if request.transport and transport is None:
        violations.add("transport", "is no known transport")
    size = requests.page_size(violations, request.page_size)
    violations.raise_if_any()
    return transport, size, request.page_token


def tools_to_proto(tools: Sequence[Tool]) -> list[tool_pb2.Tool]:
    """Writes tools."""
    return [tool_to_proto(tool) for tool in tools]


def tool_to_proto(tool: Tool) -> tool_pb2.Tool:
    """Writes a tool."""
    contents = tool.contents
    return tool_pb2.Tool(
        tool_id=str(tool.tool_id),
        name=contents.name,
        description=contents.description,
        input_schema=wire.to_struct(contents.input_schema),
        transport=_TRANSPORTS_TO_PROTO[contents.transport],
        builtin=contents.builtin,
        effect=_EFFECTS_TO_PROTO[contents.effect],
        time_limit=None if contents.time_limit is None else wire.to_duration(contents.time_limit),
        cost_per_call_nanos=contents.cost_per_call_nanos,
        version=tool.version,
        digest=tool.digest,
        labels=contents.labels,
        create_time=wire.to_timestamp(tool.create_time),
        update_time=wire.to_timestamp(tool.update_time),
    )


def _time_limit(violations: Violations, tool: tool_pb2.Tool) -> timedelta | None:
    if not tool.HasField("time_limit"):
        return None
    limit = wire.from_duration(tool.time_limit, "tool.time_limit", violations)
    if not _SHORTEST <= limit <= _LONGEST:
        violations.add("tool.time_limit", "must be between 10 ms and 10 min")
    return limit
