"""Between the contract's bindings and ours."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from minion.registry.v1 import agent_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key

from minion_registry import requests
from minion_registry.agents import convert as agents_convert
from minion_registry.bindings.domain import AgentTool, BindingState, ResolvedAgent
from minion_registry.rollouts.convert import assignment_to_proto
from minion_registry.tools import convert as tools_convert

_DIGEST = re.compile(r"[0-9a-f]{64}")

_STATES_TO_PROTO: Mapping[BindingState, agent_pb2.BindingState.ValueType] = {
    BindingState.USABLE: agent_pb2.BINDING_STATE_USABLE,
    BindingState.DIGEST_CHANGED: agent_pb2.BINDING_STATE_DIGEST_CHANGED,
    BindingState.TOOL_RETIRED: agent_pb2.BINDING_STATE_TOOL_RETIRED,
}


def bind_from_proto(request: pb.BindToolRequest) -> tuple[UUID, UUID, dict[str, Any], str, Key | None]:
    """Reads the agent, the tool, its settings and the digest that is expected. Raises InvalidArgument."""
    violations = Violations()
    agent_id = violations.identifier("agent_id", request.agent_id)
    tool_id = violations.identifier("tool_id", request.tool_id)
    configuration = requests.json_object(violations, "configuration", request.configuration)
    if request.expected_digest and not _DIGEST.fullmatch(request.expected_digest):
        violations.add("expected_digest", "must be 64 characters of 0-9 and a-f")
    key = requests.key(violations, request)
    violations.raise_if_any()
    return agent_id, tool_id, configuration, request.expected_digest, key


def unbind_from_proto(request: pb.UnbindToolRequest) -> tuple[UUID, UUID, Key | None]:
    """Reads the agent and the tool. Raises InvalidArgument with all faults."""
    violations = Violations()
    agent_id = violations.identifier("agent_id", request.agent_id)
    tool_id = violations.identifier("tool_id", request.tool_id)
    key = requests.key(violations, request)
    violations.raise_if_any()
    return agent_id, tool_id, key


def json_bytes(tools: Iterable[AgentTool]) -> int:
    """Measures the JSON values of bindings, which are what converting them costs."""
    return sum(tools_convert.json_bytes([bound.tool]) + wire.json_bytes([bound.configuration]) for bound in tools)


def resolved_json_bytes(resolved: ResolvedAgent) -> int:
    """Measures the JSON values of an agent with its tools and its rollout."""
    agents = [resolved.agent] if resolved.rollout is None else [resolved.agent, resolved.rollout.candidate]
    return json_bytes(resolved.tools) + agents_convert.json_bytes(agents)


def agent_tools_to_proto(tools: Sequence[AgentTool]) -> list[agent_pb2.AgentTool]:
    """Writes bindings."""
    return [agent_tool_to_proto(bound) for bound in tools]


def agent_tool_to_proto(bound: AgentTool) -> agent_pb2.AgentTool:
    """Writes a binding."""
    return agent_pb2.AgentTool(
        agent_id=str(bound.agent_id),
        tool=tools_convert.tool_to_proto(bound.tool),
        configuration=wire.to_struct(bound.configuration),
        bound_digest=bound.bound_digest,
        create_time=wire.to_timestamp(bound.create_time),
        state=_STATES_TO_PROTO[bound.state],
        merged_configuration=wire.to_struct(bound.merged_configuration),
    )


def resolved_to_proto(resolved: ResolvedAgent) -> agent_pb2.ResolvedAgent:
    """Writes an agent with its tools and its rollout."""
    return agent_pb2.ResolvedAgent(
        agent=agents_convert.agent_to_proto(resolved.agent),
        tools=agent_tools_to_proto(resolved.tools),
        rollout=None if resolved.rollout is None else assignment_to_proto(resolved.rollout),
    )
