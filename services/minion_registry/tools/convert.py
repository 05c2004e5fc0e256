"""Between the contract's tools and ours."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from google.protobuf.struct_pb2 import Struct
from minion.registry.v1 import tool_pb2
from minion.registry.v1 import tool_service_pb2 as pb
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key
from uuid_utils.compat import uuid7

from minion_registry import requests
from minion_registry.json_values import Fault
from minion_registry.paging import fitting
from minion_registry.tools import targets
from minion_registry.tools.domain import (
    ChangedTool,
    CredentialReference,
    Tool,
    ToolApproval,
    ToolContents,
    ToolEffect,
    ToolExample,
    ToolFilter,
    ToolName,
    ToolStatus,
    ToolTransport,
)

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_CREDENTIAL_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_SECRET = re.compile(r"env:[A-Z][A-Z0-9_]{0,127}|file:[a-z0-9][a-z0-9._-]{0,127}")
_SCHEMA_BYTES = 64 * 1024
_EXAMPLES_BYTES = 64 * 1024
_ARGUMENTS_BYTES = 256 * 1024
_MOST_EXAMPLES = 20
_MOST_CREDENTIALS = 8
_FILTER_LABELS = 8
_SHORTEST = timedelta(milliseconds=10)
_LONGEST = timedelta(minutes=10)
_DEAREST = 10**15

_TRANSPORTS: Mapping[tool_pb2.ToolTransport.ValueType, ToolTransport] = {
    tool_pb2.TOOL_TRANSPORT_BUILTIN: ToolTransport.BUILTIN,
    tool_pb2.TOOL_TRANSPORT_GRPC: ToolTransport.GRPC,
    tool_pb2.TOOL_TRANSPORT_HTTP: ToolTransport.HTTP,
    tool_pb2.TOOL_TRANSPORT_MCP: ToolTransport.MCP,
    tool_pb2.TOOL_TRANSPORT_AGENT: ToolTransport.AGENT,
    tool_pb2.TOOL_TRANSPORT_CLIENT: ToolTransport.CLIENT,
}
_EFFECTS: Mapping[tool_pb2.ToolEffect.ValueType, ToolEffect] = {
    tool_pb2.TOOL_EFFECT_READ_ONLY: ToolEffect.READ_ONLY,
    tool_pb2.TOOL_EFFECT_IDEMPOTENT: ToolEffect.IDEMPOTENT,
    tool_pb2.TOOL_EFFECT_SIDE_EFFECT: ToolEffect.SIDE_EFFECT,
}
_APPROVALS: Mapping[tool_pb2.ToolApproval.ValueType, ToolApproval] = {
    tool_pb2.TOOL_APPROVAL_UNSPECIFIED: ToolApproval.NEVER,
    tool_pb2.TOOL_APPROVAL_NEVER: ToolApproval.NEVER,
    tool_pb2.TOOL_APPROVAL_ALWAYS: ToolApproval.ALWAYS,
}
_STATUSES: Mapping[tool_pb2.ToolStatus.ValueType, ToolStatus] = {
    tool_pb2.TOOL_STATUS_ACTIVE: ToolStatus.ACTIVE,
    tool_pb2.TOOL_STATUS_DEPRECATED: ToolStatus.DEPRECATED,
    tool_pb2.TOOL_STATUS_RETIRED: ToolStatus.RETIRED,
}
_TRANSPORTS_TO_PROTO = {transport: value for value, transport in _TRANSPORTS.items()}
_EFFECTS_TO_PROTO = {effect: value for value, effect in _EFFECTS.items()}
_APPROVALS_TO_PROTO = {approval: value for value, approval in _APPROVALS.items() if value}
_STATUSES_TO_PROTO = {status: value for value, status in _STATUSES.items()}


def register_from_proto(request: pb.RegisterToolRequest) -> tuple[UUID, ToolContents, Key | None]:
    """Reads a tool that is to be. Raises InvalidArgument with all faults; the schemas' own are not looked for here."""
    violations = Violations()
    tool_id = requests.identifier_or_new(violations, "tool.tool_id", request.tool.tool_id, uuid7())
    contents = ToolContents(**{field: read(violations, request.tool) for field, read in _FIELDS.items()})
    for fault in contents.target_faults() if request.tool.transport in _TRANSPORTS else ():
        violations.add(fault.field, fault.description)
    key = requests.key(violations, request)
    violations.raise_if_any()
    return tool_id, contents, key


def update_from_proto(request: pb.UpdateToolRequest) -> tuple[UUID, dict[str, Any], str, Key | None]:
    """Reads the tool, the fields that change with their new values, and the etag. Raises InvalidArgument."""
    violations = Violations()
    tool_id = violations.identifier("tool.tool_id", request.tool.tool_id)
    paths: Collection[str] = ()
    if request.update_mask.paths:
        paths = wire.mask_paths(request.update_mask, _FIELDS, "update_mask", violations)
    else:
        violations.add("update_mask", "is required")
    changes = {field: read(violations, request.tool) for field, read in _FIELDS.items() if field in paths}
    key = requests.key(violations, request)
    violations.raise_if_any()
    return tool_id, changes, request.etag, key


def move_from_proto(
    request: pb.DeprecateToolRequest | pb.RetireToolRequest,
) -> tuple[UUID, str, str, Key | None]:
    """Reads the tool, the note and the etag. Raises InvalidArgument with all faults."""
    violations = Violations()
    tool_id = violations.identifier("tool_id", request.tool_id)
    note = violations.length("note", request.note, maximum=1_000)
    key = requests.key(violations, request)
    violations.raise_if_any()
    return tool_id, note, request.etag, key


def get_from_proto(request: pb.GetToolRequest) -> tuple[ToolName, int]:
    """Reads which tool and version are meant. Raises InvalidArgument with all faults."""
    violations = Violations()
    named = _named(violations, request)
    violations.raise_if_any()
    return named, request.version


def list_from_proto(request: pb.ListToolsRequest) -> tuple[ToolFilter, int, str]:
    """Reads the filters, the page size and the token. Raises InvalidArgument with all faults."""
    violations = Violations()
    transport, status = _TRANSPORTS.get(request.transport), _STATUSES.get(request.status)
    if request.transport and transport is None:
        violations.add("transport", "is no known transport")
    if request.status and status is None:
        violations.add("status", "is no known status")
    labels = requests.labels(violations, "labels", request.labels, maximum=_FILTER_LABELS)
    size = requests.page_size(violations, request.page_size)
    violations.raise_if_any()
    return ToolFilter(transport, status, labels), size, request.page_token


def versions_from_proto(request: pb.ListToolVersionsRequest) -> tuple[UUID, int, str]:
    """Reads the tool, the page size and the token. Raises InvalidArgument with all faults."""
    violations = Violations()
    tool_id = violations.identifier("tool_id", request.tool_id)
    size = requests.page_size(violations, request.page_size)
    violations.raise_if_any()
    return tool_id, size, request.page_token


def validate_from_proto(request: pb.ValidateToolArgumentsRequest) -> tuple[ToolName, int, dict[str, Any]]:
    """Reads the tool, its version and the arguments. Raises InvalidArgument with all faults."""
    violations = Violations()
    named = _named(violations, request)
    arguments = requests.json_object(violations, "arguments", request.arguments, maximum=_ARGUMENTS_BYTES)
    violations.raise_if_any()
    return named, request.version, arguments


def json_bytes(tools: Iterable[Tool]) -> int:
    """Measures the JSON values of tools, which are what converting them costs."""
    return sum(wire.json_bytes(_json_values(tool.contents)) for tool in tools)


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
        output_schema=_optional_struct(contents.output_schema),
        examples=[_example_to_proto(example) for example in contents.examples],
        documentation=contents.documentation,
        grpc=targets.grpc_to_proto(contents.grpc),
        http=targets.http_to_proto(contents.http),
        mcp=targets.mcp_to_proto(contents.mcp),
        target_agent_id=wire.optional_text(contents.target_agent_id),
        approval=_APPROVALS_TO_PROTO[contents.approval],
        configuration_schema=_optional_struct(contents.configuration_schema),
        default_configuration=_optional_struct(contents.default_configuration or None),
        credentials=[
            tool_pb2.CredentialReference(name=reference.name, secret=reference.secret)
            for reference in contents.credentials
        ],
        status=_STATUSES_TO_PROTO[tool.status],
        status_note=tool.status_note,
        etag=tool.etag,
    )


def updated_to_proto(changed: ChangedTool) -> pb.UpdateToolResponse:
    """Writes a changed tool and how many bindings the change blocked."""
    return pb.UpdateToolResponse(tool=tool_to_proto(changed.tool), blocked_binding_count=changed.blocked_binding_count)


def faults_to_proto(faults: Sequence[Fault]) -> pb.ValidateToolArgumentsResponse:
    """Writes what is wrong with arguments: as many faults as fit, since their paths hold names of any length."""
    shown = fitting([_fault_bytes(fault) for fault in faults], len(faults))
    return pb.ValidateToolArgumentsResponse(
        valid=not faults,
        violations=[
            pb.ArgumentViolation(path=fault.pointer, description=fault.description, schema_path=fault.schema_pointer)
            for fault in faults[:shown]
        ],
    )


def _fault_bytes(fault: Fault) -> int:
    return sum(len(text.encode()) for text in (fault.pointer, fault.schema_pointer, fault.description)) + 20


def _named(violations: Violations, request: pb.GetToolRequest | pb.ValidateToolArgumentsRequest) -> ToolName:
    requests.either(violations, {"tool_id": request.tool_id, "name": request.name})
    tool_id = violations.optional_identifier("tool_id", request.tool_id)
    violations.length("name", request.name, maximum=64)
    if request.version < 0:
        violations.add("version", f"must not be negative, is {request.version}")
    return ToolName(tool_id=tool_id, name=request.name or None)


def _json_values(contents: ToolContents) -> tuple[Any, ...]:
    examples = [(example.arguments, example.output) for example in contents.examples]
    return (
        contents.input_schema,
        contents.output_schema,
        contents.configuration_schema,
        contents.default_configuration,
        examples,
    )


def _optional_struct(values: Mapping[str, Any] | None) -> Struct | None:
    return None if values is None else wire.to_struct(values)


def _example_to_proto(example: ToolExample) -> tool_pb2.ToolExample:
    return tool_pb2.ToolExample(
        description=example.description,
        arguments=wire.to_struct(example.arguments),
        output=wire.to_value(example.output) if example.shows_output else None,
    )


def _name(violations: Violations, tool: tool_pb2.Tool) -> str:
    if not _NAME.fullmatch(tool.name):
        violations.add("tool.name", "must be 1 to 64 characters of a-z, 0-9 and '_', starting with a letter")
    return tool.name


def _schema(violations: Violations, field: str, schema: Struct) -> dict[str, Any]:
    return requests.json_object(violations, field, schema, maximum=_SCHEMA_BYTES)


def _output_schema(violations: Violations, tool: tool_pb2.Tool) -> dict[str, Any] | None:
    return _schema(violations, "tool.output_schema", tool.output_schema) if tool.HasField("output_schema") else None


def _configuration_schema(violations: Violations, tool: tool_pb2.Tool) -> dict[str, Any] | None:
    if not tool.HasField("configuration_schema"):
        return None
    return _schema(violations, "tool.configuration_schema", tool.configuration_schema)


def _transport(violations: Violations, tool: tool_pb2.Tool) -> ToolTransport:
    if tool.transport not in _TRANSPORTS:
        violations.add("tool.transport", f"must be one of {', '.join(known.name for known in ToolTransport)}")
    return _TRANSPORTS.get(tool.transport, ToolTransport.BUILTIN)


def _effect(violations: Violations, tool: tool_pb2.Tool) -> ToolEffect:
    if tool.effect not in _EFFECTS:
        violations.add("tool.effect", "must be READ_ONLY, IDEMPOTENT or SIDE_EFFECT")
    return _EFFECTS.get(tool.effect, ToolEffect.SIDE_EFFECT)


def _approval(violations: Violations, tool: tool_pb2.Tool) -> ToolApproval:
    if tool.approval not in _APPROVALS:
        violations.add("tool.approval", "must be NEVER or ALWAYS")
    return _APPROVALS.get(tool.approval, ToolApproval.ALWAYS)


def _time_limit(violations: Violations, tool: tool_pb2.Tool) -> timedelta | None:
    if not tool.HasField("time_limit"):
        return None
    limit = wire.from_duration(tool.time_limit, "tool.time_limit", violations)
    if not _SHORTEST <= limit <= _LONGEST:
        violations.add("tool.time_limit", "must be between 10 ms and 10 min")
    return limit


def _cost(violations: Violations, tool: tool_pb2.Tool) -> int:
    violations.between("tool.cost_per_call_nanos", tool.cost_per_call_nanos, minimum=0, maximum=_DEAREST)
    return tool.cost_per_call_nanos


def _examples(violations: Violations, tool: tool_pb2.Tool) -> tuple[ToolExample, ...]:
    violations.count("tool.examples", tool.examples, maximum=_MOST_EXAMPLES)
    examples = []
    left = _EXAMPLES_BYTES
    for index, example in enumerate(tool.examples):
        field = f"tool.examples[{index}]"
        shows_output = example.HasField("output")
        read = ToolExample(
            description=violations.length(f"{field}.description", example.description, maximum=500),
            arguments=requests.json_object(
                violations, f"{field}.arguments", example.arguments, maximum=_EXAMPLES_BYTES
            ),
            output=wire.from_bounded_value(example.output, f"{field}.output", violations, maximum=_EXAMPLES_BYTES)
            if shows_output
            else None,
            shows_output=shows_output,
        )
        left -= wire.json_bytes((read.arguments, read.output))
        if left < 0:
            violations.stop("tool.examples", f"must have at most {_EXAMPLES_BYTES} bytes as JSON together")
        examples.append(read)
    return tuple(examples)


def _credentials(violations: Violations, tool: tool_pb2.Tool) -> tuple[CredentialReference, ...]:
    violations.count("tool.credentials", tool.credentials, maximum=_MOST_CREDENTIALS)
    names: set[str] = set()
    for index, reference in enumerate(tool.credentials):
        field = f"tool.credentials[{index}]"
        if not _CREDENTIAL_NAME.fullmatch(reference.name):
            violations.add(f"{field}.name", "must be 1 to 63 characters of a-z, 0-9 and '_', starting with a letter")
        elif reference.name in names:
            violations.add(f"{field}.name", "is another reference's name as well")
        names.add(reference.name)
        # What stands there may be a secret by mistake: it is not repeated.
        if not _SECRET.fullmatch(reference.secret):
            violations.add(f"{field}.secret", "must be env:NAME or file:NAME: where the secret is, never what it is")
    return tuple(CredentialReference(reference.name, reference.secret) for reference in tool.credentials)


# What a caller may write, by field of the contract and of `ToolContents`; they have the same names.
_FIELDS: Mapping[str, Callable[[Violations, tool_pb2.Tool], Any]] = {
    "name": _name,
    "description": lambda found, tool: found.length("tool.description", tool.description, minimum=1, maximum=4_000),
    "input_schema": lambda found, tool: _schema(found, "tool.input_schema", tool.input_schema),
    "transport": _transport,
    "builtin": lambda found, tool: found.length("tool.builtin", tool.builtin, maximum=64),
    "effect": _effect,
    "time_limit": _time_limit,
    "cost_per_call_nanos": _cost,
    "labels": lambda found, tool: requests.labels(found, "tool.labels", tool.labels),
    "output_schema": _output_schema,
    "examples": _examples,
    "documentation": lambda found, tool: found.length("tool.documentation", tool.documentation, maximum=20_000),
    "grpc": targets.grpc_from_proto,
    "http": targets.http_from_proto,
    "mcp": targets.mcp_from_proto,
    "target_agent_id": lambda found, tool: found.optional_identifier("tool.target_agent_id", tool.target_agent_id),
    "approval": _approval,
    "configuration_schema": _configuration_schema,
    "default_configuration": lambda found, tool: requests.json_object(
        found, "tool.default_configuration", tool.default_configuration
    ),
    "credentials": _credentials,
}
