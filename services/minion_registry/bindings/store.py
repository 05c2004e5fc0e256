"""Rows of bindings, and agents with their tools."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from minion_errors import NotFound
from minion_postgres import Database, Record, Transaction, queries

from minion_registry.agents.domain import AgentName
from minion_registry.agents.store import agent_from_row, not_found
from minion_registry.bindings.domain import AgentTool, ResolvedAgent
from minion_registry.rollouts.domain import RolloutAssignment
from minion_registry.tools.domain import Tool
from minion_registry.tools.store import tool_from_row

_QUERIES = queries.load(__package__)


class BindingStore:
    """Reads and writes which tools an agent may call."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def bind(
        self, transaction: Transaction, tenant_id: UUID, agent_id: UUID, tool: Tool, configuration: dict[str, Any]
    ) -> AgentTool:
        """Binds a tool to a locked agent, or binds it anew."""
        row = await transaction.fetch_one(_QUERIES.bind_tool, tenant_id, agent_id, tool.tool_id, configuration)
        assert row is not None
        return AgentTool(agent_id, tool, row["configuration"], row["bound_digest"], row["bind_time"])

    async def find(self, transaction: Transaction, tenant_id: UUID, agent_id: UUID, tool: Tool) -> AgentTool | None:
        """Reads how a tool is bound to an agent, if it is."""
        row = await transaction.fetch_one(_QUERIES.get_binding, tenant_id, agent_id, tool.tool_id)
        if row is None:
            return None
        return AgentTool(agent_id, tool, row["configuration"], row["bound_digest"], row["bind_time"])

    async def unbind(self, transaction: Transaction, tenant_id: UUID, agent_id: UUID, tool_id: UUID) -> None:
        """Takes a tool from a locked agent. Raises NotFound (BINDING_NOT_FOUND)."""
        if await transaction.execute(_QUERIES.unbind_tool, tenant_id, agent_id, tool_id) == 0:
            raise NotFound(
                "The tool isn't bound to the agent.",
                reason="BINDING_NOT_FOUND",
                metadata={"agent_id": str(agent_id), "tool_id": str(tool_id)},
            )

    async def measure(self, transaction: Transaction, tenant_id: UUID, agent_id: UUID) -> tuple[int, int]:
        """Returns how many tools a locked agent has, and at least how many bytes they take on the wire together."""
        row = await transaction.fetch_one(_QUERIES.measure_tools, tenant_id, agent_id)
        assert row is not None
        return row["tools"], row["wire_bytes"]

    async def page(
        self, transaction: Transaction, tenant_id: UUID, agent_id: UUID, after: str, limit: int
    ) -> Sequence[AgentTool]:
        """Returns at most `limit` tools of an agent whose names come after `after`, by name."""
        rows = await transaction.fetch(_QUERIES.list_agent_tools, tenant_id, agent_id, after, limit)
        return [_agent_tool(agent_id, row) for row in rows]

    async def resolve(self, tenant_id: UUID, named: AgentName) -> ResolvedAgent:
        """Reads an agent with its tools and rollout in one round trip. Raises NotFound (AGENT_NOT_FOUND)."""
        row = await self._database.fetch_one(_QUERIES.resolve_agent, tenant_id, named.agent_id, named.name)
        if row is None:
            raise not_found(named)
        agent = agent_from_row(row)
        tools = tuple(_agent_tool(agent.agent_id, _from_json(tool)) for tool in row["tools"])
        return ResolvedAgent(agent=agent, tools=tools, rollout=_assignment(row, row["rollout"]))


def _agent_tool(agent_id: UUID, row: Record | Mapping[str, Any]) -> AgentTool:
    return AgentTool(
        agent_id=agent_id,
        tool=tool_from_row(row),
        configuration=row["configuration"],
        bound_digest=row["bound_digest"],
        create_time=row["bind_time"],
    )


def _assignment(agent: Record, rollout: Mapping[str, Any] | None) -> RolloutAssignment | None:
    """Reads a rollout that SQL wrote as JSON: what isn't the candidate revision's own is the agent's."""
    if rollout is None:
        return None
    revision = rollout["candidate"]
    candidate = {
        **agent,
        **revision,
        "agent_id": agent["agent_id"],
        "create_time": agent["create_time"],
        "updated_at": datetime.fromisoformat(revision["create_time"]),
    }
    return RolloutAssignment(UUID(rollout["rollout_id"]), rollout["basis_points"], agent_from_row(candidate))


def _from_json(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Gives a tool that SQL wrote as JSON the types that its row has."""
    limit = tool["time_limit_seconds"]
    return {
        **tool,
        "tool_id": UUID(tool["tool_id"]),
        "time_limit": None if limit is None else timedelta(seconds=limit),
        **{name: datetime.fromisoformat(tool[name]) for name in ("create_time", "updated_at", "bind_time")},
    }
