"""An agent with large tools is read off the event loop: leases are renewed meanwhile."""

from typing import Any
from uuid import UUID

import grpc
import pytest
from minion.registry.v1 import agent_pb2, agent_service_pb2, tool_pb2
from minion_gateway.agents.peer import RegistryPeer
from minion_grpc.wire import to_struct
from minion_testing.stalls import share_off_loop

AGENT = UUID(int=1)


def bound(name: str) -> agent_pb2.AgentTool:
    """A tool whose schema takes 64 KB on the wire, of which each value is four bytes."""
    tool = tool_pb2.Tool(
        name=name,
        transport=tool_pb2.TOOL_TRANSPORT_BUILTIN,
        effect=tool_pb2.TOOL_EFFECT_READ_ONLY,
        input_schema=to_struct({"type": "object", "examples": [[] for _ in range(16_000)]}),
    )
    return agent_pb2.AgentTool(tool=tool, state=agent_pb2.BINDING_STATE_USABLE)


ANSWER = agent_service_pb2.ResolveAgentResponse(
    resolved_agent=agent_pb2.ResolvedAgent(
        agent=agent_pb2.Agent(agent_id=str(AGENT), status=agent_pb2.AGENT_STATUS_ACTIVE),
        tools=[bound(f"t{place}") for place in range(40)],
    )
)


class Stub:
    """A registry whose answers are large and there at once."""

    async def ResolveAgent(self, *_: Any, **__: Any) -> agent_service_pb2.ResolveAgentResponse:
        return ANSWER


async def test_an_agent_with_large_tools_is_read_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async with grpc.aio.insecure_channel("localhost:1") as nobody:
        peer = RegistryPeer(nobody)
    monkeypatch.setattr(peer, "_stub", Stub())
    assert len((await peer.resolve(AGENT)).snapshot.agent.tools) == 40
    # Next to nothing where it is read on the loop.
    assert await share_off_loop(lambda: peer.resolve(AGENT), enough=0.5) > 0.5
