"""What changes a tool, and what is told of it."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from minion.registry.v1 import agent_pb2, agent_service_pb2, tool_pb2
from minion.registry.v1 import tool_service_pb2 as pb
from minion_postgres import Database

from tests.minion_registry.stage import Caller

Move = Callable[..., Awaitable[tool_pb2.Tool]]


def update(tool_id: str, *, etag: str = "", request_id: str = "", **fields: Any) -> pb.UpdateToolRequest:
    request = pb.UpdateToolRequest(tool=tool_pb2.Tool(tool_id=tool_id, **fields), etag=etag, request_id=request_id)
    request.update_mask.paths.extend(fields)
    return request


async def updated(caller: Caller, tool_id: str, **fields: Any) -> pb.UpdateToolResponse:
    return await caller.tools.UpdateTool(update(tool_id, **fields))


async def deprecate(caller: Caller, tool_id: str, **fields: Any) -> tool_pb2.Tool:
    return (await caller.tools.DeprecateTool(pb.DeprecateToolRequest(tool_id=tool_id, **fields))).tool


async def retire(caller: Caller, tool_id: str, **fields: Any) -> tool_pb2.Tool:
    return (await caller.tools.RetireTool(pb.RetireToolRequest(tool_id=tool_id, **fields))).tool


MOVES = [
    pytest.param(deprecate, tool_pb2.TOOL_STATUS_DEPRECATED, id="deprecate"),
    pytest.param(retire, tool_pb2.TOOL_STATUS_RETIRED, id="retire"),
]


async def read(caller: Caller, tool_id: str, version: int = 0) -> tool_pb2.Tool:
    return (await caller.tools.GetTool(pb.GetToolRequest(tool_id=tool_id, version=version))).tool


async def states(caller: Caller, agent_id: str) -> list["agent_pb2.BindingState.ValueType"]:
    request = agent_service_pb2.ResolveAgentRequest(agent_id=agent_id)
    return [bound.state for bound in (await caller.agents.ResolveAgent(request)).resolved_agent.tools]


async def audit(owner: Database, caller: Caller) -> list[tuple[str, dict[str, Any], Any]]:
    """What the audit waits to send of a tenant's tools and bindings: name, details, agent."""
    rows = await owner.fetch(
        "SELECT payload, principal FROM registry.outbox WHERE tenant_id = $1 ORDER BY activity_id", caller.tenant_id
    )
    assert all(row["principal"] for row in rows)
    told = [(row["payload"]["name"], row["payload"]["input"], row["payload"]["agent_id"]) for row in rows]
    return [entry for entry in told if entry[0].startswith(("tool.", "binding."))]
