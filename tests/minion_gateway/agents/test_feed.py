"""The registry as it may be: ending its feed, away, or of the release before. A server stands for it.

One that purged changes can't be had in seconds, nor an older one in this environment.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import grpc
import pytest
import structlog.testing
from minion.registry.v1 import agent_pb2, agent_service_pb2, tool_pb2
from minion_auth import CallerKind, Identity, acting_as
from minion_errors import Unavailable
from minion_gateway.agents import service
from minion_gateway.agents.domain import BoundTool
from minion_gateway.agents.metrics import AgentMetrics
from minion_gateway.agents.peer import RegistryPeer
from minion_gateway.agents.service import Agents
from minion_grpc import wire
from prometheus_client import CollectorRegistry

TENANT, AGENT, OTHER = (UUID(int=number) for number in (1, 2, 3))
IDENTITY = Identity(kind=CallerKind.SERVICE, tenant_id=TENANT, principal="service:gateway", service="gateway")
Watch = agent_service_pb2.WatchAgentsResponse
SYNCED = agent_pb2.AGENT_CHANGE_KIND_SYNCED


class Registry:
    """Stands for a registry, in which every agent is there.

    With a refusal its feed ends after one change, and is not taken up again where it was.
    """

    def __init__(self, refusal: grpc.StatusCode | None) -> None:
        self.refusal = refusal
        self.cursors: list[str] = []
        self.asked = 0
        self.changes: asyncio.Queue[Watch] = asyncio.Queue()
        self.is_away = False
        self.includes_tools = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.instructions = ""
        self.tools: list[agent_pb2.AgentTool] = []

    async def watch(self, request: Any, context: Any) -> AsyncIterator[Watch]:
        if self.is_away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        self.includes_tools = request.include_tools
        self.cursors.append(request.cursor)
        if request.cursor and self.refusal is not None:
            await context.abort(self.refusal, "CURSOR_EXPIRED")
        yield Watch(cursor="a", kind=SYNCED)
        yield await self.changes.get()
        while self.refusal is None or len(self.cursors) > 1:
            change = await self.changes.get()
            if self.is_away:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
            yield change

    async def resolve(self, request: Any, context: Any) -> agent_service_pb2.ResolveAgentResponse:
        self.asked += 1
        await self.may_answer.wait()
        if self.is_away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        agent = agent_pb2.Agent(
            agent_id=request.agent_id, status=agent_pb2.AGENT_STATUS_ACTIVE, instructions=self.instructions
        )
        return agent_service_pb2.ResolveAgentResponse(
            resolved_agent=agent_pb2.ResolvedAgent(agent=agent, tools=self.tools)
        )

    def handler(self) -> grpc.GenericRpcHandler:
        """Serves of the agents' RPCs those that are asked for."""
        watch: grpc.RpcMethodHandler[Any, Any] = grpc.unary_stream_rpc_method_handler(
            self.watch,
            agent_service_pb2.WatchAgentsRequest.FromString,
            agent_service_pb2.WatchAgentsResponse.SerializeToString,
        )
        resolve: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
            self.resolve,
            agent_service_pb2.ResolveAgentRequest.FromString,
            agent_service_pb2.ResolveAgentResponse.SerializeToString,
        )
        handlers = {"WatchAgents": watch, "ResolveAgent": resolve}
        return grpc.method_handlers_generic_handler("minion.registry.v1.AgentService", handlers)


class MovedClock:
    """A clock that can be put forward, by seconds."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Followed:
    """A cache of agents that follows a registry."""

    def __init__(self, registry: Registry, metrics: CollectorRegistry, channel: grpc.aio.Channel) -> None:
        self.registry, self._metrics, self.clock = registry, metrics, MovedClock()
        self._told = AgentMetrics(metrics)
        self._agents = Agents(RegistryPeer(channel), self._told, monotonic=self.clock)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Follows for a block."""
        watch = asyncio.create_task(self._agents.watch())
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def asks(self, agent_id: UUID) -> bool:
        """Resolves an agent, and says whether the registry was asked."""
        before = self.registry.asked
        with acting_as(IDENTITY):
            await self._agents.resolve(agent_id)
        return self.registry.asked > before

    async def tools(self) -> Sequence[BoundTool]:
        """Returns the tools that the agent may call."""
        with acting_as(IDENTITY):
            return (await self._agents.resolve(AGENT)).snapshot.agent.tools

    async def up(self, *, is_up: bool = True) -> None:
        """Waits until the feed is followed, or no more."""
        async with asyncio.timeout(60):
            while self._metrics.get_sample_value("agents_feed_up") != is_up:  # noqa: ASYNC110 - a metric tells nobody
                await asyncio.sleep(0.01)

    async def synced(self) -> None:
        """Says SYNCED, and waits until it was heard."""
        self._told.feed_up.set(0)
        self.registry.changes.put_nowait(Watch(cursor="s", kind=SYNCED))
        await self.up()

    async def away(self) -> None:
        """Takes the registry away, and waits until that was noticed."""
        self.registry.is_away = True
        self.registry.changes.put_nowait(Watch(cursor="lost", kind=SYNCED))
        await self.up(is_up=False)

    def stale(self) -> float:
        """How often an agent was served as it was last seen."""
        return self._metrics.get_sample_value("agents_stale_total") or 0.0

    async def asks_again(self, agent_id: UUID) -> None:
        """Waits until an agent that was known is asked for."""
        async with asyncio.timeout(60):
            while not await self.asks(agent_id):  # noqa: ASYNC110 - a cache tells nobody
                await asyncio.sleep(0.01)


@asynccontextmanager
async def following(refusal: grpc.StatusCode | None) -> AsyncIterator[Followed]:
    server, registry = grpc.aio.server(), Registry(refusal)
    server.add_generic_rpc_handlers([registry.handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            followed = Followed(registry, CollectorRegistry(), channel)
            async with followed.watching():
                await followed.up()
                yield followed
    finally:
        await server.stop(None)


@pytest.mark.parametrize("refusal", [grpc.StatusCode.ABORTED, grpc.StatusCode.INVALID_ARGUMENT])
async def test_a_place_that_is_known_no_more_makes_everything_be_asked_for_anew(refusal: grpc.StatusCode) -> None:
    async with following(refusal) as followed:
        assert await followed.asks(AGENT)
        assert not await followed.asks(AGENT)
        # The first stream ends with a change that concerns another agent.
        followed.registry.changes.put_nowait(
            Watch(cursor="a2", kind=agent_pb2.AGENT_CHANGE_KIND_UPDATED, tenant_id=str(TENANT), agent_id=str(OTHER))
        )
        async with asyncio.timeout(60):
            while len(followed.registry.cursors) < 3:  # noqa: ASYNC110 - a server that stands for another
                await asyncio.sleep(0.01)
        assert followed.registry.cursors == ["", "a2", ""]
        await followed.up()
        assert await followed.asks(AGENT)
        assert not await followed.asks(AGENT)


@pytest.mark.parametrize("kind", [kind for kind in agent_pb2.AgentChangeKind.values() if kind > SYNCED])
async def test_every_kind_of_change_makes_its_agent_be_asked_for(kind: agent_pb2.AgentChangeKind.ValueType) -> None:
    is_of_a_tool = kind == agent_pb2.AGENT_CHANGE_KIND_TOOL_CHANGED
    async with following(None) as followed:
        assert await followed.asks(AGENT)
        assert not await followed.asks(AGENT)
        followed.registry.changes.put_nowait(
            Watch(
                cursor="a2",
                kind=kind,
                tenant_id=str(TENANT),
                agent_id="" if is_of_a_tool else str(AGENT),
                tool_id=str(UUID(int=9)) if is_of_a_tool else "",
            )
        )
        await followed.asks_again(AGENT)
        # A registry tells of tools to who asks for it alone.
        assert followed.registry.includes_tools
        # The feed went on all the while: it was the change, and nothing else.
        assert followed.registry.cursors == [""]


@pytest.mark.parametrize(
    ("tenant_id", "agent_id", "is_asked_again"),
    [(TENANT, str(AGENT), True), (TENANT, "", True), (TENANT, str(OTHER), False), (OTHER, str(AGENT), False)],
    ids=["own", "of a tool", "another agent's", "another tenant's"],
)
async def test_an_agent_is_asked_for_again_where_its_own_change_came_meanwhile(
    tenant_id: UUID, agent_id: str, is_asked_again: bool
) -> None:
    async with following(None) as followed:
        followed.registry.may_answer.clear()
        asking = asyncio.create_task(followed.asks(AGENT))
        async with asyncio.timeout(60):
            while not followed.registry.asked:  # noqa: ASYNC110 - a server that stands for another
                await asyncio.sleep(0.01)
        kind = agent_pb2.AGENT_CHANGE_KIND_UPDATED if agent_id else agent_pb2.AGENT_CHANGE_KIND_TOOL_CHANGED
        followed.registry.changes.put_nowait(Watch(cursor="a2", kind=kind, tenant_id=str(tenant_id), agent_id=agent_id))
        await followed.synced()
        followed.registry.may_answer.set()
        assert await asking
        assert await followed.asks(AGENT) == is_asked_again


async def test_of_large_agents_fewer_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_REMEMBERED_BYTES", 350_000)
    agents = [UUID(int=number) for number in range(10, 14)]
    async with following(None) as followed:
        followed.registry.instructions = "x" * 100_000
        for agent_id in agents:
            assert await followed.asks(agent_id)
        assert [await followed.asks(agent_id) for agent_id in agents[1:]] == [False] * 3
        # What changes gives its room back.
        for cursor, agent_id in enumerate(agents[1:]):
            followed.registry.changes.put_nowait(
                Watch(
                    cursor=f"c{cursor}",
                    kind=agent_pb2.AGENT_CHANGE_KIND_UPDATED,
                    tenant_id=str(TENANT),
                    agent_id=str(agent_id),
                )
            )
            await followed.asks_again(agent_id)
        assert [await followed.asks(agent_id) for agent_id in agents[1:]] == [False] * 3
        assert await followed.asks(agents[0])
        assert await followed.asks(agents[1])


@pytest.mark.parametrize("says", ["synced", "changed"])
async def test_an_agent_asked_for_long_ago_is_served_for_five_minutes_of_an_outage(says: str) -> None:
    async with following(None) as followed:
        assert await followed.asks(AGENT)
        assert await followed.asks(OTHER)
        # An hour goes by, in which the feed has nothing to say of this agent.
        followed.clock.ahead += 3_600
        if says == "synced":
            await followed.synced()
        else:
            followed.registry.changes.put_nowait(
                Watch(cursor="a2", kind=agent_pb2.AGENT_CHANGE_KIND_UPDATED, tenant_id=str(TENANT), agent_id=str(OTHER))
            )
            await followed.asks_again(OTHER)
        await followed.away()
        followed.clock.ahead += 280
        assert await followed.asks(AGENT)
        assert followed.stale() == 1
        followed.clock.ahead += 30
        with pytest.raises(Unavailable):
            await followed.asks(AGENT)


async def test_a_feed_that_is_taken_up_at_the_next_try_is_no_outage_and_one_that_is_not_is_told() -> None:
    async with following(None) as followed:
        with structlog.testing.capture_logs() as lines:
            # As when a connection ends by its age.
            await followed.synced()
            await followed.away()
            followed.registry.is_away = False
            await followed.up()
            await followed.synced()
            assert not [line for line in lines if line["log_level"] == "warning"]
            await followed.away()
            async with asyncio.timeout(60):
                while not [line for line in lines if line["log_level"] == "warning"]:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.01)


def bound(name: str, *, bound_digest: str = "d1", tool: tool_pb2.Tool | None = None, **fields: Any) -> Any:
    """A builtin that was bound, as the release before tells it, with what later ones tell besides."""
    told = tool_pb2.Tool(
        name=name,
        transport=tool_pb2.TOOL_TRANSPORT_BUILTIN,
        builtin=name,
        effect=tool_pb2.TOOL_EFFECT_READ_ONLY,
        digest="d1",
    )
    told.MergeFrom(tool or tool_pb2.Tool())
    return agent_pb2.AgentTool(
        tool=told, bound_digest=bound_digest, configuration=wire.to_struct({"own": True}), **fields
    )


async def test_a_registry_of_the_release_before_tells_what_can_be_called_by_the_digest() -> None:
    async with following(None) as followed:
        followed.registry.tools = [bound("clock"), bound("calculator", bound_digest="d0")]
        (clock,) = await followed.tools()
    assert (clock.name, clock.configuration, clock.needs_approval) == ("clock", {"own": True}, False)


async def test_what_the_registry_says_of_a_binding_counts() -> None:
    usable, changed, retired = (
        agent_pb2.BINDING_STATE_USABLE,
        agent_pb2.BINDING_STATE_DIGEST_CHANGED,
        agent_pb2.BINDING_STATE_TOOL_RETIRED,
    )
    merged = wire.to_struct({"own": True, "default": 1})
    async with following(None) as followed:
        followed.registry.tools = [
            bound("clock", state=usable, merged_configuration=merged, tool=approved(tool_pb2.TOOL_APPROVAL_NEVER)),
            # Merged to nothing is not the same as not merged.
            bound("recall", state=usable, merged_configuration={}, tool=approved(tool_pb2.TOOL_APPROVAL_ALWAYS)),
            # Of a later release.
            bound("remember", state=usable, tool=approved(9)),
            bound("calculator", state=changed),
            bound("workspace", state=retired),
        ]
        tools = await followed.tools()
    assert [(tool.name, tool.configuration, tool.needs_approval) for tool in tools] == [
        ("clock", {"own": True, "default": 1}, False),
        ("recall", {}, True),
        ("remember", {"own": True}, True),
    ]


def approved(approval: int) -> tool_pb2.Tool:
    told = tool_pb2.Tool()
    told.approval = approval  # type: ignore[assignment]  # numbers that only later releases name are read as well
    return told
