"""What a binding of a tool to an agent is."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from minion_errors import ResourceExhausted

from minion_registry.agents.domain import Agent
from minion_registry.rollouts.domain import RolloutAssignment
from minion_registry.tools.domain import Tool

MAXIMUM_TOOLS = 128
# All of an agent goes to the gateway in one message, which may have 4 MiB.
MAXIMUM_TOOL_BYTES = 3 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class AgentTool:
    """A tool that an agent may call. `bound_digest` is the tool's digest when it was bound."""

    agent_id: UUID
    tool: Tool
    configuration: dict[str, Any]
    bound_digest: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class ResolvedAgent:
    """An agent with its tools, by name, and its rollout under way: all that the gateway needs to run it."""

    agent: Agent
    tools: tuple[AgentTool, ...]
    rollout: RolloutAssignment | None = None


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
