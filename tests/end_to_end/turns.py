"""A turn through the generated stubs, as a client in any language would take it."""

from dataclasses import dataclass, field

from google.protobuf.struct_pb2 import Struct
from minion.gateway.v1 import run_pb2, run_service_pb2, run_service_pb2_grpc
from minion.registry.v1 import (
    agent_pb2,
    agent_service_pb2,
    agent_service_pb2_grpc,
    tool_service_pb2,
    tool_service_pb2_grpc,
)
from minion.session.v1 import session_service_pb2, session_service_pb2_grpc
from uuid_utils.compat import uuid7

from tests.end_to_end.stacks import RunningStack


@dataclass(slots=True)
class Taken:
    """A turn and its events."""

    run: run_pb2.Run
    events: list[run_pb2.RunEvent] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The deltas joined."""
        return "".join(event.text_delta.text for event in self.events)


async def new_agent(stack: RunningStack, *tools: str) -> agent_pb2.Agent:
    """Creates and activates an agent with some of the tenant's tools."""
    async with stack.channel("registry") as channel:
        agents, known = agent_service_pb2_grpc.AgentServiceStub(channel), tool_service_pb2_grpc.ToolServiceStub(channel)
        agent = agent_pb2.Agent(
            name=f"a-{uuid7().hex[-12:]}",
            behavior_type="tool_use" if tools else "conversational",
            instructions="Be brief.",
            behavior=agent_pb2.BehaviorSettings(memory=agent_pb2.MemoryPolicy(recall=True)),
        )
        created = await agents.CreateAgent(
            agent_service_pb2.CreateAgentRequest(agent=agent, request_id=str(uuid7())), metadata=stack.metadata
        )
        for name in tools:
            tool = await known.GetTool(tool_service_pb2.GetToolRequest(name=name), metadata=stack.metadata)
            await agents.BindTool(
                agent_service_pb2.BindToolRequest(
                    agent_id=created.agent.agent_id,
                    tool_id=tool.tool.tool_id,
                    configuration=Struct(),
                    request_id=str(uuid7()),
                ),
                metadata=stack.metadata,
            )
        activated = await agents.ActivateAgent(
            agent_service_pb2.ActivateAgentRequest(agent_id=created.agent.agent_id, request_id=str(uuid7())),
            metadata=stack.metadata,
        )
    return activated.agent


async def new_session(stack: RunningStack, agent_id: str, user: str = "ada") -> str:
    """Opens a session."""
    async with stack.channel("session") as channel:
        sessions = session_service_pb2_grpc.SessionServiceStub(channel)
        request = session_service_pb2.CreateSessionRequest(agent_id=agent_id, user_id=user, request_id=str(uuid7()))
        return (await sessions.CreateSession(request, metadata=stack.metadata)).session.session_id


async def take_turn(stack: RunningStack, session_id: str, text: str) -> Taken:
    """Streams one turn to its end."""
    async with stack.channel("gateway") as channel:
        runs = run_service_pb2_grpc.RunServiceStub(channel)
        request = run_service_pb2.StreamRunRequest(session_id=session_id, text=text, request_id=str(uuid7()))
        stream = runs.StreamRun(request, metadata=stack.metadata, timeout=60)
        events = [response.event async for response in stream]
    assert events[-1].WhichOneof("event") == "run_finished"
    return Taken(events[-1].run_finished.run, events)


async def texts(stack: RunningStack, session_id: str) -> list[str]:
    """What was said in a session, in words."""
    async with stack.channel("session") as channel:
        sessions = session_service_pb2_grpc.SessionServiceStub(channel)
        request = session_service_pb2.ListMessagesRequest(session_id=session_id)
        listed = await sessions.ListMessages(request, metadata=stack.metadata)
    return [part.text for message in listed.messages for part in message.parts if part.text]
