"""Gateways as processes that can be killed, among services that can't."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.struct_pb2 import Struct
from grpc_health.v1 import health_pb2, health_pb2_grpc
from minion.activity.v1 import activity_pb2, activity_service_pb2
from minion.activity.v1.activity_service_pb2_grpc import ActivityServiceStub
from minion.gateway.v1 import run_pb2, run_service_pb2
from minion.registry.v1 import agent_pb2, agent_service_pb2, tool_pb2, tool_service_pb2
from minion.registry.v1.agent_service_pb2_grpc import AgentServiceStub
from minion.registry.v1.tool_service_pb2_grpc import ToolServiceStub
from minion.session.v1 import blob_service_pb2, message_pb2, session_pb2, session_service_pb2
from minion.session.v1.blob_service_pb2_grpc import BlobServiceStub
from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_testing.fake_provider import FakeProvider
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import OPERATOR_KEY, SERVICE_KEY, Served, free_ports, serve
from minion_testing.tenants import Tenant, new_tenant

ROOT = Path(__file__).parents[2]
_START_SECONDS = 120.0
_AROUND = ("registry", "session", "activity", "memory")
_STREAM = "/minion.gateway.v1.RunService/StreamRun"


@dataclass(slots=True)
class GatewayProcess:
    """One gateway, in a process of its own."""

    port: int
    environ: Mapping[str, str]
    orders: Path
    log: Path
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"127.0.0.1:{self.port}"

    def order(self, point: str, signal_name: str, *, passes: int = 1) -> None:
        """Orders what shall happen to it, and where."""
        self.orders.write_text(json.dumps({"point": point, "pass": passes, "signal": signal_name}))

    @property
    def carried_out(self) -> bool:
        """Whether the last order was carried out."""
        return not self.orders.read_text()

    async def start(self) -> None:
        """Starts it and waits until it serves."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.faults.crashing",
                str(self.orders),
                env=dict(self.environ),
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        self.restarts += 1
        async with asyncio.timeout(_START_SECONDS), grpc.aio.insecure_channel(self.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            while True:
                if self.process.returncode is not None:
                    raise AssertionError(f"the gateway did not start: {self.log.read_text()[-3000:]}")
                with suppress(grpc.aio.AioRpcError):
                    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1, wait_for_ready=True)
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return

    async def died(self) -> None:
        """Waits until it was killed."""
        assert self.process is not None
        async with asyncio.timeout(60):
            assert await self.process.wait() == -signal.SIGKILL

    def forget(self) -> None:
        """Takes an order back."""
        self.orders.write_text("")

    async def paused(self, asked: "asyncio.Task[Seen]") -> bool:
        """Waits until it is paused; False when the turn has ended for a while, and it was not."""
        assert self.process is not None
        pid, clock = self.process.pid, asyncio.get_running_loop().time
        ended: list[float] = []
        asked.add_done_callback(lambda _: ended.append(clock()))

        async def known() -> str:
            if await _is_paused(pid):
                return "paused"
            return "missed" if ended and clock() > ended[0] + 1.0 else ""

        return bool(await until(known, seconds=60) == "paused")

    def resume(self) -> None:
        """Lets a paused one go on."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Ends it, if it still is."""
        if self.process is not None and self.process.returncode is None:
            self.resume()
            self.process.kill()
            await self.process.wait()


@dataclass(slots=True)
class Seen:
    """What a client saw of a run: the events as they stood on the wire, and whether they came to an end."""

    raw: list[bytes] = field(default_factory=list)
    whole: bool = False

    @property
    def events(self) -> list[run_pb2.RunEvent]:
        """The events."""
        return [run_service_pb2.StreamRunResponse.FromString(each).event for each in self.raw]


@dataclass(slots=True)
class Battlefield:
    """The services, the provider, and a tenant with an agent."""

    services: Mapping[str, Served]
    provider: FakeProvider
    database: ClonedDatabase
    environ: Mapping[str, str]
    directory: Path
    tenant: Tenant
    agents: Mapping[str, str]
    _held: AsyncExitStack

    def gateway(self) -> GatewayProcess:
        """A gateway that is not started yet."""
        (port,) = free_ports(1)
        name = uuid4().hex[:8]
        orders = self.directory / f"{name}.orders"
        orders.write_text("")
        environ = {**self.environ, "MINION_GATEWAY_PORT": str(port)}
        return GatewayProcess(port, environ, orders, self.directory / f"{name}.log")

    async def channel(self, service: str) -> grpc.aio.Channel:
        """A channel to a service, with the tenant's key."""
        return await self._held.enter_async_context(self.services[service].channel(self.tenant.api_key))

    async def session(self, shape: str) -> str:
        """Opens a session with the agent for a shape of turn."""
        stub: Any = SessionServiceStub(await self.channel("session"))
        request = session_service_pb2.CreateSessionRequest(agent_id=self.agents[shape], user_id="ann")
        return str((await stub.CreateSession(request)).session.session_id)

    async def messages(self, session_id: str) -> list[message_pb2.Message]:
        """Reads a session."""
        stub: Any = SessionServiceStub(await self.channel("session"))
        answer = await stub.ListMessages(session_service_pb2.ListMessagesRequest(session_id=session_id))
        return list(answer.messages)

    async def versions(self, session_id: str) -> dict[str, int]:
        """Reads how often each workspace entry was set."""
        stub: Any = SessionServiceStub(await self.channel("session"))
        answer = await stub.GetWorkspace(session_service_pb2.GetWorkspaceRequest(session_id=session_id))
        return {entry.key: entry.version for entry in answer.entries}

    async def summaries(self, session_id: str) -> list[session_pb2.Summary]:
        """Reads what was summarized of a session."""
        stub: Any = SessionServiceStub(await self.channel("session"))
        answer = await stub.ListSummaries(session_service_pb2.ListSummariesRequest(session_id=session_id))
        return list(answer.summaries)

    async def blob(self, blob_id: str) -> bytes:
        """Reads a blob."""
        stub: Any = BlobServiceStub(await self.channel("session"))
        call = stub.GetBlob(blob_service_pb2.GetBlobRequest(blob_id=blob_id))
        return b"".join([answer.chunk async for answer in call])

    async def audit(self, run_id: str, count: int) -> list[activity_pb2.Activity]:
        """Waits until the audit has so many rows of a run, and returns all that it has."""
        stub: Any = ActivityServiceStub(await self.channel("activity"))
        request = activity_service_pb2.ListActivitiesRequest(run_id=run_id)

        async def arrived() -> list[activity_pb2.Activity]:
            found = list((await stub.ListActivities(request)).activities)
            return found if len(found) >= count else []

        found: list[activity_pb2.Activity] = await until(arrived, seconds=60)
        return found

    async def stream(self, gateway: GatewayProcess, session_id: str, text: str, request_id: str) -> Seen:
        """Asks for a run and collects its events, until its end or the gateway's."""
        seen = Seen()
        request = run_service_pb2.StreamRunRequest(session_id=session_id, text=text, request_id=request_id)
        metadata = (("authorization", f"Bearer {self.tenant.api_key}"),)
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            method: Any = channel.unary_stream(
                _STREAM, request_serializer=run_service_pb2.StreamRunRequest.SerializeToString
            )
            call = method(request, metadata=metadata, timeout=120)
            try:
                async for raw in call:
                    seen.raw.append(raw)
                seen.whole = True
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            finally:
                call.cancel()
        return seen


async def until(condition: Callable[[], Awaitable[Any]], *, seconds: float) -> Any:
    """Waits until an async condition gives something true, and returns that."""
    async with asyncio.timeout(seconds):
        while True:
            if found := await condition():
                return found
            await asyncio.sleep(0.02)


async def _is_paused(pid: int) -> bool:
    # The state of a process, after its name (proc(5)).
    stat = await asyncio.to_thread(Path(f"/proc/{pid}/stat").read_text)
    return stat.rpartition(")")[2].split()[0] == "T"


@asynccontextmanager
async def battlefield(database: ClonedDatabase, directory: Path) -> AsyncIterator[Battlefield]:
    """Runs all but the gateway, for a block."""
    async with AsyncExitStack() as held:
        provider = await held.enter_async_context(FakeProvider(ledger=directory / "provider.ledger"))
        ports = dict(zip(_AROUND, free_ports(len(_AROUND)), strict=True))
        addresses = {f"MINION_{name.upper()}_ADDRESS": f"127.0.0.1:{port}" for name, port in ports.items()}
        services = {
            name: await held.enter_async_context(serve(name, database, environ=addresses, port=ports[name]))
            for name in _AROUND
        }
        tenant = await new_tenant(services["registry"])
        environ = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("MINION_", "OPENAI_", "OTEL_"))
            },
            **addresses,
            "PYTHONPATH": os.pathsep.join(str(ROOT / source) for source in ("services", "shared", ".")),
            "MINION_DATABASE_URL": database.dsn("gateway"),
            "MINION_AUTH_MODE": "required",
            "MINION_SERVICE_KEY": SERVICE_KEY,
            "MINION_OPERATOR_KEY": OPERATOR_KEY,
            "MINION_GATEWAY_OPERATIONS_PORT": "0",
            "MINION_LEASE_SECONDS": "0.3",
            # So short a lease runs out whenever the machine is busy, and the gateway takes its run over from itself.
            "MINION_MAXIMUM_RECOVERIES": "100",
            "MINION_OUTBOX_CLAIM_SECONDS": "1",
            "MINION_EVENT_POLL_SECONDS": "0.02",
            "MINION_SUMMARY_POLL_SECONDS": "0.05",
            "MINION_POOL_MIN_SIZE": "1",
            "MINION_POOL_MAX_SIZE": "8",
            "MINION_DEFAULT_EMBEDDING_MODEL": "openai/text-embedding-3-small",
            "OPENAI_BASE_URL": provider.base_url,
            "OPENAI_API_KEY": "sk-test",
        }
        async with services["registry"].channel(tenant.api_key) as channel:
            summary = agent_pb2.SummaryPolicy(enabled=True, trigger_tokens=256, target_tokens=64, keep_messages=0)
            agents = {
                "plain": await _agent(channel, "plain"),
                "tool": await _agent(channel, "tool", "workspace"),
                "large": await _agent(channel, "large", "calculator"),
                "summary": await _agent(channel, "summary", behavior=agent_pb2.BehaviorSettings(summary=summary)),
            }
        yield Battlefield(services, provider, database, environ, directory, tenant, agents, held)


async def _agent(
    channel: grpc.aio.Channel, name: str, *builtins: str, behavior: agent_pb2.BehaviorSettings | None = None
) -> str:
    agents: Any = AgentServiceStub(channel)
    tools: Any = ToolServiceStub(channel)
    agent = agent_pb2.Agent(
        name=name,
        behavior_type="tool_use",
        llm=agent_pb2.LlmConfig(model="openai/gpt-4o-mini"),
        behavior=behavior,
    )
    made = await agents.CreateAgent(agent_service_pb2.CreateAgentRequest(agent=agent))
    agent_id = str(made.agent.agent_id)
    schema = Struct()
    schema.update({"type": "object"})
    for builtin in builtins:
        tool = tool_pb2.Tool(
            name=builtin,
            description=f"The {builtin}.",
            input_schema=schema,
            transport=tool_pb2.TOOL_TRANSPORT_BUILTIN,
            builtin=builtin,
            effect=tool_pb2.TOOL_EFFECT_IDEMPOTENT,
        )
        registered = await tools.RegisterTool(tool_service_pb2.RegisterToolRequest(tool=tool))
        await agents.BindTool(agent_service_pb2.BindToolRequest(agent_id=agent_id, tool_id=registered.tool.tool_id))
    await agents.ActivateAgent(agent_service_pb2.ActivateAgentRequest(agent_id=agent_id))
    return agent_id
