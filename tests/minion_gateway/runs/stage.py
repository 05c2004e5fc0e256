"""The gateway with the services around it, and an agent to run."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
from google.protobuf.struct_pb2 import Struct
from minion.activity.v1 import activity_pb2, activity_service_pb2
from minion.activity.v1.activity_service_pb2_grpc import ActivityServiceStub
from minion.gateway.v1 import run_pb2, run_service_pb2
from minion.gateway.v1.run_service_pb2_grpc import RunServiceStub
from minion.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from minion.registry.v1 import agent_pb2, agent_service_pb2, tool_pb2, tool_service_pb2
from minion.registry.v1.agent_service_pb2_grpc import AgentServiceStub
from minion.registry.v1.tool_service_pb2_grpc import ToolServiceStub
from minion.session.v1 import message_pb2, session_service_pb2
from minion.session.v1.blob_service_pb2_grpc import BlobServiceStub
from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_postgres import Database
from minion_testing.fake_provider import FakeProvider
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, free_ports, serve
from minion_testing.tenants import Tenant, new_tenant

NOBODY = "127.0.0.1:1"
MODEL = "openai/gpt-4o-mini"
# So long that replicas keep their runs however busy the machine is: one that is taken over is asked for again. Tests of
# that end leases themselves.
LEASE_SECONDS = 60.0
# What a service is told beside where the others are.
_SETTINGS: Mapping[str, Mapping[str, object]] = {"registry": {"rollout_check_seconds": 0.1}}

OBJECT: Mapping[str, Any] = {"type": "object"}
SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "clock": {"type": "object", "properties": {"timezone": {"type": "string"}}, "additionalProperties": False},
    "calculator": {
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
        "additionalProperties": False,
    },
    "workspace": {
        "type": "object",
        "properties": {"operation": {"enum": ["set", "get", "list"]}, "key": {"type": "string"}, "value": {}},
    },
    "remember": {"type": "object", "properties": {"content": {"type": "string"}}, "required": ["content"]},
    "recall": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    "read_blob": {"type": "object", "properties": {"blob_id": {"type": "string"}}, "required": ["blob_id"]},
}
_EFFECTS = {
    "clock": tool_pb2.TOOL_EFFECT_READ_ONLY,
    "calculator": tool_pb2.TOOL_EFFECT_READ_ONLY,
    "workspace": tool_pb2.TOOL_EFFECT_IDEMPOTENT,
    "remember": tool_pb2.TOOL_EFFECT_IDEMPOTENT,
    "recall": tool_pb2.TOOL_EFFECT_READ_ONLY,
    "read_blob": tool_pb2.TOOL_EFFECT_READ_ONLY,
}


def struct(values: Mapping[str, Any]) -> Struct:
    """A JSON object on the wire."""
    made = Struct()
    made.update(dict(values))
    return made


@dataclass(frozen=True, slots=True)
class Stage:
    """Running services, a provider that does as it is told, and a way into each database."""

    database: ClonedDatabase
    provider: FakeProvider
    services: Mapping[str, Served]
    ports: Mapping[str, int]
    environ: Mapping[str, str]

    @property
    def gateway(self) -> Served:
        """The gateway under test."""
        return self.services["gateway"]

    def gateway_settings(self, **overrides: object) -> dict[str, object]:
        """Settings of a gateway on this stage."""
        settings: dict[str, object] = {
            **{
                f"{service}_address": f"127.0.0.1:{port}"
                for service, port in self.ports.items()
                if service != "gateway"
            },
            "lease_seconds": LEASE_SECONDS,
            "event_poll_seconds": 0.02,
            "outbox_poll_seconds": 0.02,
            "summary_poll_seconds": 0.02,
            "provider_retry_wait_seconds": 0.2,
        }
        return {**settings, **overrides}

    @asynccontextmanager
    async def second_gateway(self, **overrides: object) -> AsyncIterator[Served]:
        """Another replica of the gateway, for a block."""
        settings = {**self.gateway_settings(), **overrides}
        async with serve("gateway", self.database, environ=self.environ, **settings) as served:
            yield served


async def until(condition: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """Waits until an async condition gives something true, and returns that."""
    async with asyncio.timeout(seconds):
        while True:
            found = await condition()
            if found:
                return found
            await asyncio.sleep(0.01)


@dataclass(slots=True)
class Client:
    """A tenant's client of every service, with an agent and sessions."""

    stage: Stage
    gateway: Served | None = None
    user_id: str = "ann"
    tenant: Tenant = field(init=False)
    _held: AsyncExitStack = field(default_factory=AsyncExitStack)
    _channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    def channel(self, service: str) -> grpc.aio.Channel:
        """A channel to a service, with the tenant's key."""
        return self._channels[service]

    async def __aenter__(self) -> "Client":
        self.tenant = await new_tenant(self.stage.services["registry"])
        services = {**self.stage.services, "gateway": self.gateway or self.stage.gateway}
        for name, served in services.items():
            self._channels[name] = await self._held.enter_async_context(served.channel(self.tenant.api_key))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._held.aclose()

    @property
    def tenant_id(self) -> UUID:
        """The tenant."""
        return self.tenant.tenant_id

    @property
    def runs(self) -> Any:
        """The run service."""
        return RunServiceStub(self.channel("gateway"))

    @property
    def sessions(self) -> Any:
        """The session service."""
        return SessionServiceStub(self.channel("session"))

    @property
    def blobs(self) -> Any:
        """The session service's blobs."""
        return BlobServiceStub(self.channel("session"))

    @property
    def memories(self) -> Any:
        """The memory service."""
        return MemoryServiceStub(self.channel("memory"))

    @property
    def agents(self) -> Any:
        """The registry's agents."""
        return AgentServiceStub(self.channel("registry"))

    async def agent(
        self,
        *,
        tools: tuple[str, ...] = (),
        behavior_type: str = "tool_use",
        model: str = MODEL,
        active: bool = True,
        behavior: agent_pb2.BehaviorSettings | None = None,
        time_limit: float | None = None,
    ) -> str:
        """Makes an agent with builtin tools, and activates it."""
        agent = agent_pb2.Agent(
            name=f"agent-{uuid4().hex[:12]}",
            behavior_type=behavior_type,
            instructions="Be brief.",
            llm=agent_pb2.LlmConfig(model=model, max_output_tokens=200),
            behavior=behavior or agent_pb2.BehaviorSettings(),
        )
        made = await self.agents.CreateAgent(agent_service_pb2.CreateAgentRequest(agent=agent))
        agent_id: str = made.agent.agent_id
        for builtin in tools:
            await self.bind(agent_id, await self.tool(builtin, time_limit=time_limit))
        if active:
            await self.agents.ActivateAgent(agent_service_pb2.ActivateAgentRequest(agent_id=agent_id))
        return agent_id

    async def tool(self, builtin: str, *, time_limit: float | None = None, **fields: Any) -> str:
        """Registers a builtin under its own name."""
        tool = tool_pb2.Tool(
            **{
                "name": builtin,
                "description": f"The {builtin}.",
                "input_schema": struct(SCHEMAS[builtin]),
                "transport": tool_pb2.TOOL_TRANSPORT_BUILTIN,
                "builtin": builtin,
                "effect": _EFFECTS[builtin],
                **fields,
            }
        )
        if time_limit is not None:
            tool.time_limit.FromNanoseconds(int(time_limit * 1e9))
        made = await self.tools.RegisterTool(tool_service_pb2.RegisterToolRequest(tool=tool))
        return str(made.tool.tool_id)

    @property
    def tools(self) -> Any:
        """The registry's tools."""
        return ToolServiceStub(self.channel("registry"))

    async def bind(self, agent_id: str, tool_id: str, **fields: Any) -> None:
        """Gives a tool to an agent."""
        await self.agents.BindTool(agent_service_pb2.BindToolRequest(agent_id=agent_id, tool_id=tool_id, **fields))

    async def session(self, agent_id: str) -> str:
        """Opens a session."""
        request = session_service_pb2.CreateSessionRequest(agent_id=agent_id, user_id=self.user_id)
        made = await self.sessions.CreateSession(request)
        return str(made.session.session_id)

    async def agent_of(self, session_id: str) -> UUID:
        """Returns the agent of a session."""
        answer = await self.sessions.GetSession(session_service_pb2.GetSessionRequest(session_id=session_id))
        return UUID(answer.session.agent_id)

    async def conversation(self, **agent: Any) -> str:
        """Makes an agent and opens a session with it."""
        return await self.session(await self.agent(**agent))

    async def create(self, session_id: str, text: str = "hello", **fields: Any) -> run_pb2.Run:
        """Runs a turn and waits."""
        request = run_service_pb2.CreateRunRequest(session_id=session_id, text=text, **fields)
        answer = await self.runs.CreateRun(request, timeout=120)
        run: run_pb2.Run = answer.run
        return run

    async def stream(self, session_id: str, text: str = "hello", **fields: Any) -> list[run_pb2.RunEvent]:
        """Runs a turn and collects its events."""
        request = run_service_pb2.StreamRunRequest(session_id=session_id, text=text, **fields)
        return [answer.event async for answer in self.runs.StreamRun(request, timeout=120)]

    async def watch(self, run_id: str, after: int = 0, *, channel: grpc.aio.Channel | None = None) -> list[bytes]:
        """Re-attaches to a run and collects its events as they stand on the wire."""
        method: Any = (channel or self.channel("gateway")).unary_stream(
            "/minion.gateway.v1.RunService/WatchRun",
            request_serializer=run_service_pb2.WatchRunRequest.SerializeToString,
        )
        request = run_service_pb2.WatchRunRequest(run_id=run_id, after_sequence=after)
        return [answer async for answer in method(request, timeout=120)]

    async def get(self, run_id: str) -> run_pb2.Run:
        """Reads a run."""
        answer = await self.runs.GetRun(run_service_pb2.GetRunRequest(run_id=run_id))
        run: run_pb2.Run = answer.run
        return run

    async def audit(self, run_id: str, count: int) -> list[activity_pb2.Activity]:
        """Waits until the audit has so many rows of a run, and returns them by step, the run's own last."""
        stub: Any = ActivityServiceStub(self.channel("activity"))

        async def arrived() -> list[activity_pb2.Activity]:
            answer = await stub.ListActivities(activity_service_pb2.ListActivitiesRequest(run_id=run_id))
            return list(answer.activities) if len(answer.activities) >= count else []

        found: list[activity_pb2.Activity] = await until(arrived)
        assert len(found) == count
        return sorted(found, key=lambda row: row.step_sequence or 1_000)

    async def messages(self, session_id: str) -> list[message_pb2.Message]:
        """Reads a session's messages."""
        answer = await self.sessions.ListMessages(session_service_pb2.ListMessagesRequest(session_id=session_id))
        return list(answer.messages)


@asynccontextmanager
async def staging(
    database: ClonedDatabase, cache: Path, *, variables: Mapping[str, str] | None = None, **gateway: object
) -> AsyncIterator[Stage]:
    """Runs the services, wired to each other, for a block; all of them are told the `variables`."""
    names = ["registry", "session", "activity", "memory", "gateway"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    async with AsyncExitStack() as running:
        provider = await running.enter_async_context(FakeProvider())
        environ = {"OPENAI_BASE_URL": provider.base_url, "OPENAI_API_KEY": "sk-test", **(variables or {})}
        services: dict[str, Served] = {}
        wiring = {
            **{f"MINION_{name.upper()}_ADDRESS": f"127.0.0.1:{port}" for name, port in ports.items()},
            **(variables or {}),
        }
        for name in names[:-1]:
            services[name] = await running.enter_async_context(
                serve(name, database, environ={**wiring}, port=ports[name], **_SETTINGS.get(name, {}))
            )
        stage = Stage(database, provider, services, {**ports}, environ | {"MINION_MODEL_CACHE": str(cache)})
        values = stage.gateway_settings(port=ports["gateway"])
        services["gateway"] = await running.enter_async_context(
            serve("gateway", database, environ=stage.environ, **{**values, **gateway})
        )
        yield stage


async def rows(owner: Database, sql: str, *args: object) -> list[dict[str, Any]]:
    """Looks behind the curtain, as the schema's owner."""
    return [dict(row) for row in await owner.fetch(sql, *args)]
