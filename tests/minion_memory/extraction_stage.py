"""The memory service among the services that extraction asks: sessions, agents and models, all of them real."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import orjson
from google.protobuf.struct_pb2 import Value
from minion.memory.v1 import extraction_pb2, memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from minion.registry.v1 import agent_pb2, agent_service_pb2
from minion.registry.v1.agent_service_pb2_grpc import AgentServiceStub
from minion.session.v1 import message_pb2, session_service_pb2
from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_testing.fake_provider import FakeProvider
from minion_testing.postgres import ClonedDatabase
from minion_testing.provider_script import Reply
from minion_testing.serving import Served, serve
from minion_testing.tenants import new_tenant

from tests.minion_memory.gateway_stage import inference

if TYPE_CHECKING:
    # Of the type stubs alone.
    from minion.memory.v1.memory_service_pb2_grpc import MemoryServiceAsyncStub
    from minion.registry.v1.agent_service_pb2_grpc import AgentServiceAsyncStub
    from minion.session.v1.session_service_pb2_grpc import SessionServiceAsyncStub

CREATED = extraction_pb2.EXTRACTION_OUTCOME_CREATED
UPDATED = extraction_pb2.EXTRACTION_OUTCOME_UPDATED
DELETED = extraction_pb2.EXTRACTION_OUTCOME_DELETED
UNCHANGED = extraction_pb2.EXTRACTION_OUTCOME_UNCHANGED
PENDING = extraction_pb2.EXTRACTION_STATE_PENDING
DONE = extraction_pb2.EXTRACTION_STATE_DONE
FAILED = extraction_pb2.EXTRACTION_STATE_FAILED
_MODEL = "openai/extractor"


@dataclass(frozen=True, slots=True)
class House:
    """The services that extraction needs, and what the fake provider was asked."""

    database: ClonedDatabase
    memory: Served
    session: Served
    registry: Served
    provider: FakeProvider

    @asynccontextmanager
    async def tenant(self, tenant_id: UUID | None = None) -> AsyncIterator["Tenant"]:
        """Opens channels for a tenant; a new one, unless it is given."""
        tenant_id = tenant_id or (await new_tenant(self.registry)).tenant_id
        async with (
            self.memory.acting(tenant_id) as memory,
            self.session.acting(tenant_id) as session,
            self.registry.acting(tenant_id) as registry,
        ):
            yield Tenant(tenant_id, MemoryServiceStub(memory), SessionServiceStub(session), AgentServiceStub(registry))


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant's view of the house."""

    tenant_id: UUID
    memories: "MemoryServiceAsyncStub"
    sessions: "SessionServiceAsyncStub"
    agents: "AgentServiceAsyncStub"

    async def agent(self, **policy: Any) -> str:
        """Creates an agent with a memory policy."""
        agent = agent_pb2.Agent(
            name=f"agent-{uuid4().hex[:12]}",
            behavior_type="conversational",
            instructions="Be kind.",
            behavior=agent_pb2.BehaviorSettings(memory=agent_pb2.MemoryPolicy(**policy)),
        )
        answer = await self.agents.CreateAgent(agent_service_pb2.CreateAgentRequest(agent=agent))
        return answer.agent.agent_id

    async def session(self, *said: Any, agent_id: str = "", user_id: str = "ann") -> str:
        """Opens a session in which this was said: texts are the user's."""
        opened = await self.sessions.CreateSession(
            session_service_pb2.CreateSessionRequest(agent_id=agent_id or str(uuid4()), user_id=user_id)
        )
        if said:
            await self.say(opened.session.session_id, *said)
        return opened.session.session_id

    async def say(self, session_id: str, *said: Any) -> None:
        """Appends to a session."""
        messages = [one if isinstance(one, message_pb2.Message) else user(one) for one in said]
        await self.sessions.AppendMessages(
            session_service_pb2.AppendMessagesRequest(session_id=session_id, messages=messages)
        )

    async def close(self, session_id: str) -> None:
        """Closes a session."""
        await self.sessions.CloseSession(session_service_pb2.CloseSessionRequest(session_id=session_id))

    async def extract(self, session_id: str, **fields: Any) -> pb.ExtractMemoriesResponse:
        """Draws from a session, and waits."""
        return await self.memories.ExtractMemories(
            pb.ExtractMemoriesRequest(session_id=session_id, **fields), timeout=60
        )

    async def kept(self, user_id: str = "ann", **filters: Any) -> list[memory_pb2.Memory]:
        """What is remembered of a user, those that ended too, the oldest first."""
        request = pb.ListMemoriesRequest(user_id=user_id, page_size=500, **{"include_ended": True, **filters})
        return list(reversed((await self.memories.ListMemories(request)).memories))

    async def jobs(self, session_id: str) -> list[extraction_pb2.ExtractionJob]:
        """The jobs of a session, the oldest first."""
        request = pb.ListExtractionJobsRequest(session_id=session_id)
        return list(reversed((await self.memories.ListExtractionJobs(request)).jobs))

    async def done(self, session_id: str, count: int = 1, seconds: float = 60) -> list[extraction_pb2.ExtractionJob]:
        """Waits until so many jobs of a session are done."""

        async def are_done() -> bool:
            return len([job for job in await self.jobs(session_id) if job.state == DONE]) >= count

        await until(are_done, seconds)
        return [job for job in await self.jobs(session_id) if job.state == DONE]


async def until(so: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Waits for a condition that a service brings about."""
    async with asyncio.timeout(seconds):
        while not await so():  # noqa: ASYNC110 - it comes true in another process's tables
            await asyncio.sleep(0.05)


def user(text: str, author: str = "") -> message_pb2.Message:
    """A user's message."""
    return message_pb2.Message(role=message_pb2.MESSAGE_ROLE_USER, author=author, parts=[message_pb2.Part(text=text)])


def assistant(text: str) -> message_pb2.Message:
    """The agent's message."""
    return message_pb2.Message(role=message_pb2.MESSAGE_ROLE_ASSISTANT, parts=[message_pb2.Part(text=text)])


def tool(text: str) -> list[message_pb2.Message]:
    """A tool's call and its result."""
    call = message_pb2.ToolCall(tool_call_id=f"call_{uuid4().hex[:8]}", name="lookup")
    result = message_pb2.ToolResult(tool_call_id=call.tool_call_id, name="lookup", output=Value(string_value=text))
    return [
        message_pb2.Message(role=message_pb2.MESSAGE_ROLE_ASSISTANT, parts=[message_pb2.Part(tool_call=call)]),
        message_pb2.Message(role=message_pb2.MESSAGE_ROLE_TOOL, parts=[message_pb2.Part(tool_result=result)]),
    ]


def proposal(**fields: Any) -> dict[str, Any]:
    """One memory as a model proposes it; what is not given is filled in."""
    return {
        "type": "fact",
        "key": "user/name",
        "content": "The user's name is Ada.",
        "quote": "My name is Ada",
        "sequences": [1],
        "speaker": "user",
        "importance": 0.8,
        "confidence": 0.9,
        "valid_from": None,
        "supersedes": None,
        **fields,
    }


def answered(proposals: Sequence[dict[str, Any]]) -> Reply:
    """A model's answer with these memories."""
    return Reply(orjson.dumps({"memories": list(proposals)}).decode())


@asynccontextmanager
async def house(
    database: ClonedDatabase, cache: Path, *, by_model: bool = False, **overrides: Any
) -> AsyncIterator[House]:
    """Runs the services; memories are drawn by the local stand-in, or by a model of the fake provider."""
    async with (
        FakeProvider() as provider,
        inference(
            model_cache=cache,
            openai_base_url=provider.base_url,
            provider_attempts=1,
            default_chat_model=_MODEL if by_model else "local/stand-in",
        ) as gateway,
        serve("registry", database) as registry,
        serve(
            "session",
            database,
            environ={"MINION_REGISTRY_ADDRESS": registry.address},
            feed_poll_seconds=0.02,
            watch_sync_seconds=0.3,
            activity_seconds=1.0,
        ) as session,
        serve(
            "memory",
            database,
            gateway_address=gateway.address,
            session_address=session.address,
            registry_address=registry.address,
            # Long enough for a local model that is only now read, on a busy machine.
            **{"embed_seconds": 60, **overrides},
        ) as memory,
    ):
        yield House(database, memory, session, registry, provider)
