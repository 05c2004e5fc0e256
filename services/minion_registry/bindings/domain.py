"""What a binding of a tool to an agent is, and when it can be used."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from minion_errors import ResourceExhausted

from minion_registry.agents.domain import Agent
from minion_registry.rollouts.domain import RolloutAssignment
from minion_registry.tools.domain import Tool, ToolStatus

MAXIMUM_TOOLS = 128
# All of an agent goes to the gateway in one message, which takes 8 MiB: the revisions of a rollout need room as well.
MAXIMUM_TOOL_BYTES = 3 * 1024 * 1024


class BindingState(enum.Enum):
    """Whether an agent can call a tool that is bound to it."""

    USABLE = "usable"
    DIGEST_CHANGED = "digest_changed"
    TOOL_RETIRED = "tool_retired"


@dataclass(frozen=True, slots=True)
class AgentTool:
    """A tool that an agent may call. `bound_digest` is the tool's digest when it was bound."""

    agent_id: UUID
    tool: Tool
    configuration: dict[str, Any]
    bound_digest: str
    create_time: datetime

    @property
    def state(self) -> BindingState:
        """Whether the agent can call it now."""
        if self.tool.status is ToolStatus.RETIRED:
            return BindingState.TOOL_RETIRED
        return BindingState.USABLE if self.tool.digest == self.bound_digest else BindingState.DIGEST_CHANGED

    @property
    def merged_configuration(self) -> dict[str, Any]:
        """What the tool is called with: its default configuration with the binding's laid over it."""
        return merged(self.tool.contents.default_configuration, self.configuration)


@dataclass(frozen=True, slots=True)
class ResolvedAgent:
    """An agent with its tools, by name, and its rollout under way: all that the gateway needs to run it."""

    agent: Agent
    tools: tuple[AgentTool, ...]
    rollout: RolloutAssignment | None = None


def merged(target: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Lays a JSON object over another (RFC 7396): objects are merged by name, null takes a name away."""
    result = dict(target)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            below = result.get(name)
            result[name] = merged(below if isinstance(below, Mapping) else {}, value)
        else:
            result[name] = value
    return result


def check_room(tools: int, wire_bytes: int) -> None:
    """Raises ResourceExhausted (TOO_MANY_TOOLS) when an agent can't have so many tools, or such large ones."""
    limit = {}
    if tools > MAXIMUM_TOOLS:
        limit = {"limit": str(MAXIMUM_TOOLS)}
    elif wire_bytes > MAXIMUM_TOOL_BYTES:
        limit = {"limit_bytes": str(MAXIMUM_TOOL_BYTES)}
    if limit:
        raise ResourceExhausted(
            f"An agent may have {MAXIMUM_TOOLS} tools of {MAXIMUM_TOOL_BYTES} bytes together.",
            reason="TOO_MANY_TOOLS",
            metadata=limit,
        )
