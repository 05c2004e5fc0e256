"""What a binding of a tool to an agent is."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from minion_errors import ResourceExhausted

from minion_registry.agents.domain import Agent
from minion_registry.tools.domain import Tool

MAXIMUM_TOOLS = 128


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
    """An agent with its tools, by name: all that the gateway needs to run it."""

    agent: Agent
    tools: tuple[AgentTool, ...]


def check_room(bound: int) -> None:
    """Raises ResourceExhausted (TOO_MANY_TOOLS) when an agent with so many tools can take no further one."""
    if bound >= MAXIMUM_TOOLS:
        raise ResourceExhausted(
            f"An agent may have {MAXIMUM_TOOLS} tools.",
            reason="TOO_MANY_TOOLS",
            metadata={"limit": str(MAXIMUM_TOOLS)},
        )
