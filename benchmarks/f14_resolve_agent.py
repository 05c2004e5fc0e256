"""F14: ResolveAgent, cold through the registry against a bare echo that SELECTs the row; and from the gateway's cache.

Cold, two servers, each in a process of its own and called in turn by the same client with the same bytes: the registry
as it is deployed, with a rollout under way and four tools bound, and the yardstick, `python -m
benchmarks.f14_resolve_agent bare`, which reads the agent's row and echoes it. From the cache, the gateway's own
`Agents` follows that registry's feed and draws who gets which revision; the registry counts what it is asked.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import asyncpg
import grpc
import orjson
import uvloop
from google.protobuf.struct_pb2 import Struct
from minion.registry.v1 import (
    agent_pb2,
    agent_service_pb2,
    rollout_pb2,
    rollout_service_pb2,
    tool_pb2,
    tool_service_pb2,
)
from minion.registry.v1.agent_service_pb2_grpc import AgentServiceStub
from minion.registry.v1.rollout_service_pb2_grpc import RolloutServiceStub
from minion.registry.v1.tool_service_pb2_grpc import ToolServiceStub
from minion_auth import CallerKind, Identity, ServiceTokens, acting_as
from minion_gateway.agents.metrics import AgentMetrics
from minion_gateway.agents.peer import RegistryPeer
from minion_gateway.agents.service import Agents
from minion_grpc import connect
from minion_telemetry import Telemetry, TelemetrySettings
from minion_testing.postgres import ClonedDatabase, cluster
from prometheus_client import CollectorRegistry
from uuid_utils.compat import uuid7

from benchmarks.figure import Comparison, Figure, Operation, Options, interleave
from benchmarks.session_stage import POOL, SERVICE_KEY, environ, serving

ID = "F14"

_METHOD = "/minion.registry.v1.AgentService/ResolveAgent"
_SELECT = "SELECT * FROM registry.agents WHERE tenant_id = $1 AND agent_id = $2"
_TOOLS = 4
_RATIO_GOAL = 2.0
_SESSIONS = 10_000
_FOLLOW_SECONDS = 30.0


async def measure(options: Options) -> list[Figure]:
    """Measures a cold ResolveAgent's latency, and what 10,000 turns ask of the registry when the agent is known."""
    tenant_id = UUID(int=uuid7().int)
    async with AsyncExitStack() as running:
        database = await (await running.enter_async_context(cluster(durable=True))).clone()
        variables = _environ(database, tenant_id)
        await _make_tenant(database, tenant_id)
        service = await running.enter_async_context(serving("-m", "minion_registry", environ=variables))
        credential = ServiceTokens(SERVICE_KEY, "gateway")
        agent_id = await _make_agent(service.address, credential.mint(tenant_id))
        variables["MINION_BENCH_AGENT"] = agent_id
        bare = await running.enter_async_context(
            serving("-m", "benchmarks.f14_resolve_agent", "bare", environ=variables)
        )
        request = agent_service_pb2.ResolveAgentRequest(agent_id=agent_id).SerializeToString()
        ours, yardstick = [
            await running.enter_async_context(_caller(one.address, request, credential, tenant_id))
            for one in (service, bare)
        ]
        compared = await interleave(
            ours, yardstick, rounds=options.rounds, pids=[service.pid], yardstick_pids=[bare.pid]
        )
        cached = await _cached(service.address, credential, tenant_id, UUID(agent_id))
    return [_cold(compared), cached]


def _cold(compared: Comparison) -> Figure:
    value, yardstick, ratio = compared.value(lambda part: part.p50 * 1e3)
    cpu, _, _ = compared.value(lambda part: part.cpu_per_operation)
    return Figure(
        id=ID,
        name=f"ResolveAgent, cold: a rollout, {_TOOLS} tools, median",
        value=value,
        unit="ms",
        yardstick="a bare grpc.aio echo with one SELECT of the agent's row",
        yardstick_value=yardstick,
        ratio=ratio,
        goal=f"ratio <= {_RATIO_GOAL:g}",
        ok=ratio <= _RATIO_GOAL,
        cpu_us_per_op=cpu * 1e6,
        runs=len(compared.ours),
    )


async def _cached(address: str, credential: ServiceTokens, tenant_id: UUID, agent_id: UUID) -> Figure:
    asked = 0

    class _Counting(RegistryPeer):
        async def resolve(self, agent_id: UUID) -> object:  # type: ignore[override]
            nonlocal asked
            asked += 1
            return await super().resolve(agent_id)

    telemetry = Telemetry.start("gateway", TelemetrySettings.load({}))
    metrics = CollectorRegistry()
    identity = Identity(kind=CallerKind.SERVICE, tenant_id=tenant_id, principal="service:gateway", service="gateway")
    async with connect(address, telemetry=telemetry, tls=None, tokens=credential) as channel:
        agents = Agents(_Counting(channel), AgentMetrics(metrics))
        watch = asyncio.create_task(agents.watch())
        try:
            async with asyncio.timeout(_FOLLOW_SECONDS):
                while metrics.get_sample_value("agents_feed_up") != 1:  # noqa: ASYNC110 - a metric tells nobody
                    await asyncio.sleep(0.01)
            with acting_as(identity):
                await agents.resolve(agent_id)
                sessions = [UUID(int=uuid7().int) for _ in range(_SESSIONS)]
                asked, began = 0, time.process_time()
                for session in sessions:
                    (await agents.resolve(agent_id)).snapshot_for(session)
                spent = time.process_time() - began
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
    await asyncio.to_thread(telemetry.shutdown)
    return Figure(
        id=ID,
        name=f"ResolveAgent from the cache: RPCs of {_SESSIONS:,} turns",
        value=asked,
        unit="RPCs",
        yardstick="absolute",
        yardstick_value=None,
        ratio=None,
        goal="value = 0",
        ok=asked == 0,
        cpu_us_per_op=spent / _SESSIONS * 1e6,
        runs=1,
    )


def _environ(database: ClonedDatabase, tenant_id: UUID) -> dict[str, str]:
    variables = environ(database, tenant_id)
    return variables | {
        "MINION_DATABASE_URL": database.dsn("registry"),
        "MINION_REGISTRY_PORT": "0",
        "MINION_REGISTRY_OPERATIONS_PORT": "0",
        "MINION_BENCH_OWNER": database.dsn("registry", "owner"),
        # Nobody answers there: what the registry does beside the calls costs nothing worth telling.
        "MINION_ACTIVITY_ADDRESS": "127.0.0.1:1",
        "MINION_REGISTRY_ROLLOUT_CHECK_SECONDS": "30",
    }


async def _make_tenant(database: ClonedDatabase, tenant_id: UUID) -> None:
    connection = await asyncpg.connect(database.dsn("registry", "owner"))
    try:
        await connection.execute(
            "INSERT INTO registry.tenants (tenant_id, name, display_name) VALUES ($1, 'bench', '')", tenant_id
        )
    finally:
        await connection.close()


async def _make_agent(address: str, credential: str) -> str:
    """Makes an active agent with tools, and a rollout of its first revision under way; returns its id."""
    metadata = (("authorization", f"Bearer {credential}"),)
    async with grpc.aio.insecure_channel(address) as channel:
        agents, tools, rollouts = AgentServiceStub(channel), ToolServiceStub(channel), RolloutServiceStub(channel)
        agent = agent_pb2.Agent(name="bench", behavior_type="tool_use", instructions="Be brief. " * 100)
        made = await agents.CreateAgent(agent_service_pb2.CreateAgentRequest(agent=agent), metadata=metadata)
        agent_id = made.agent.agent_id
        schema = Struct()
        schema.update({"type": "object", "properties": {name: {"type": "string"} for name in ("place", "unit")}})
        for number in range(_TOOLS):
            tool = tool_pb2.Tool(
                name=f"tool_{number}",
                description="Tells what the weather is like.",
                input_schema=schema,
                transport=tool_pb2.TOOL_TRANSPORT_BUILTIN,
                builtin="clock",
                effect=tool_pb2.TOOL_EFFECT_READ_ONLY,
            )
            registered = await tools.RegisterTool(tool_service_pb2.RegisterToolRequest(tool=tool), metadata=metadata)
            await agents.BindTool(
                agent_service_pb2.BindToolRequest(agent_id=agent_id, tool_id=registered.tool.tool_id),
                metadata=metadata,
            )
        change = agent_service_pb2.UpdateAgentRequest(
            agent=agent_pb2.Agent(agent_id=agent_id, instructions="Be kind. " * 100)
        )
        change.update_mask.paths.append("instructions")
        await agents.UpdateAgent(change, metadata=metadata)
        await agents.ActivateAgent(agent_service_pb2.ActivateAgentRequest(agent_id=agent_id), metadata=metadata)
        rollout = rollout_pb2.Rollout(
            agent_id=agent_id,
            candidate_revision=1,
            steps=[rollout_pb2.RolloutStep(basis_points=1_000)],
            guardrails=rollout_pb2.RolloutGuardrails(max_error_rate=0.1),
        )
        await rollouts.StartRollout(rollout_service_pb2.StartRolloutRequest(rollout=rollout), metadata=metadata)
    return agent_id


@asynccontextmanager
async def _caller(address: str, request: bytes, credential: ServiceTokens, tenant_id: UUID) -> AsyncIterator[Operation]:
    """Gives the call: bytes in, bytes out, so that the client costs the same whoever answers."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)

        async def operation() -> object:
            return await call(request, metadata=(("authorization", f"Bearer {credential.mint(tenant_id)}"),))

        yield operation


async def _serve_bare() -> None:
    tenant_id, agent_id = UUID(os.environ["MINION_BENCH_TENANT"]), UUID(os.environ["MINION_BENCH_AGENT"])
    pool = await asyncpg.create_pool(
        os.environ["MINION_BENCH_OWNER"], min_size=POOL["pool_min_size"], max_size=POOL["pool_max_size"]
    )

    async def echo(request: bytes, context: object) -> bytes:
        row = await pool.fetchrow(_SELECT, tenant_id, agent_id)
        assert row is not None
        return request

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(echo)
    service, _, method = _METHOD[1:].partition("/")
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(orjson.dumps({"event": "serving", "address": f"127.0.0.1:{port}"}).decode(), flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    assert sys.argv[1:] == ["bare"]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_bare())
