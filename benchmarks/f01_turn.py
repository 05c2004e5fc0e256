"""F1 and F2: a whole turn through gateway, session and memory, against the frozen bill of its parts.

A process a service, Postgres with fsync on, and a provider that answers at once in a process of its own; identity,
row-level security, metrics and logs on. The turn is StreamRun with recall: its text is the same each time, so its
vector is still known, as the bill has no embedding either. The model is shown two messages.
"""

import asyncio
import itertools
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import psutil
from minion.gateway.v1 import run_service_pb2
from minion.gateway.v1.run_service_pb2_grpc import RunServiceStub
from minion.memory.v1 import memory_pb2, memory_service_pb2
from minion.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from minion.registry.v1 import (
    agent_pb2,
    agent_service_pb2,
    api_key_service_pb2,
    tenant_pb2,
    tenant_service_pb2,
)
from minion.registry.v1.agent_service_pb2_grpc import AgentServiceStub
from minion.registry.v1.api_key_service_pb2_grpc import ApiKeyServiceStub
from minion.registry.v1.tenant_service_pb2_grpc import TenantServiceStub
from minion.session.v1 import session_service_pb2
from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_testing.postgres import ClonedDatabase, cluster
from minion_testing.serving import OPERATOR_KEY, SERVICES

from benchmarks.bill import billing
from benchmarks.figure import Comparison, Figure, Operation, Options, interleave, process_tree, run_slice
from benchmarks.serving import serving

ID = ("F1", "F2")

_YARDSTICK = "the bill: 5 echoes, 6 commits, 3 reads, 1 search, 1 provider call"
_SESSIONS = 64
_CONCURRENCY = 8
_TEXT = "hello"
# Recorded beside its goal, with no verdict: the turn engine's own issue brings it home.
_RECORDED = None


async def measure(options: Options) -> list[Figure]:
    """Measures the turn's latency alone, and its rate and CPU at 8 callers."""
    async with AsyncExitStack() as running:
        served = await running.enter_async_context(cluster(durable=True))
        database, bare = await served.clone(), await served.clone(migrated=False)
        provider, base_url = await running.enter_async_context(providing())
        variables = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-bench", "MINION_OPERATOR_KEY": OPERATOR_KEY}
        services = await running.enter_async_context(serving(database, *SERVICES, variables=variables))
        turns = await running.enter_async_context(turning({name: each.address for name, each in services.items()}))
        bill, echo = await running.enter_async_context(billing(bare.admin_dsn, base_url))
        postmaster = await _postmaster(database)

        async def compared(operation: Operation, concurrency: int) -> Comparison:
            # Pools grow with the callers: all their backends are there before it is said whose CPU counts.
            for warmed in (operation, bill.pay):
                await run_slice(warmed, seconds=2, concurrency=concurrency, pids=())
            shared = [os.getpid(), provider, *process_tree(postmaster)]
            ours, theirs = [*(process.pid for process in services.values()), *shared], [echo, *shared]
            return await interleave(
                operation,
                bill.pay,
                rounds=options.rounds,
                seconds=0.8,
                concurrency=concurrency,
                pids=ours,
                yardstick_pids=theirs,
            )

        alone = await compared(turns.stream, 1)
        created = await compared(turns.create, 1)
        embedding = await compared(turns.embedding, 1)
        together = await compared(turns.stream, _CONCURRENCY)
    return [
        _latency("whole turn, StreamRun, 1 caller: p50", alone, goal=1.3),
        _latency("the same by CreateRun", created, goal=None),
        _latency("the same with a text to embed", embedding, goal=None),
        _rate(together),
        _cpu(together),
    ]


def _latency(name: str, compared: Comparison, *, goal: float | None) -> Figure:
    value, yardstick, ratio = compared.value(lambda part: part.p50 * 1e3)
    cpu, _, _ = compared.value(lambda part: part.cpu_per_operation)
    return Figure(
        id="F1",
        name=name,
        value=value,
        unit="ms",
        yardstick=_YARDSTICK,
        yardstick_value=yardstick,
        ratio=ratio,
        goal="" if goal is None else f"ratio <= {goal:g}",
        ok=_RECORDED,
        cpu_us_per_op=cpu * 1e6,
        runs=len(compared.ours),
    )


def _rate(compared: Comparison) -> Figure:
    value, yardstick, ratio = compared.value(lambda part: part.rate)
    cpu, _, _ = compared.value(lambda part: part.cpu_per_operation)
    return Figure(
        id="F2",
        name=f"turns per second, {_CONCURRENCY} callers",
        value=value,
        unit="turns/s",
        yardstick=_YARDSTICK,
        yardstick_value=yardstick,
        ratio=ratio,
        goal="ratio >= 0.75",
        ok=_RECORDED,
        cpu_us_per_op=cpu * 1e6,
        runs=len(compared.ours),
    )


def _cpu(compared: Comparison) -> Figure:
    value, yardstick, ratio = compared.value(lambda part: part.cpu_per_operation * 1e3)
    return Figure(
        id="F2",
        name=f"CPU of a turn, {_CONCURRENCY} callers",
        value=value,
        unit="ms",
        yardstick=_YARDSTICK,
        yardstick_value=yardstick,
        ratio=ratio,
        goal="ratio <= 1.4",
        ok=_RECORDED,
        cpu_us_per_op=value * 1e3,
        runs=len(compared.ours),
    )


class Turns:
    """A client with an agent and sessions in which nothing else happens."""

    def __init__(self, gateway: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...], sessions: list[str]) -> None:
        self._runs: Any = RunServiceStub(gateway)
        self._metadata = metadata
        self._sessions = itertools.cycle(sessions)
        self._numbers = itertools.count()

    async def stream(self) -> object:
        """A turn, streamed to its end."""
        request = run_service_pb2.StreamRunRequest(session_id=next(self._sessions), text=_TEXT)
        return await self._streamed(request)

    async def embedding(self) -> object:
        """A turn whose text nobody has said before."""
        text = f"{_TEXT} {next(self._numbers)}"
        return await self._streamed(run_service_pb2.StreamRunRequest(session_id=next(self._sessions), text=text))

    async def create(self) -> object:
        """A turn, waited for."""
        request = run_service_pb2.CreateRunRequest(session_id=next(self._sessions), text=_TEXT)
        return await self._runs.CreateRun(request, metadata=self._metadata)

    async def _streamed(self, request: run_service_pb2.StreamRunRequest) -> object:
        last: Any = None
        async for answer in self._runs.StreamRun(request, metadata=self._metadata):
            last = answer
        if not last.event.run_finished.run.answer:
            raise RuntimeError(f"a turn failed: {last}")
        return last


@asynccontextmanager
async def turning(addresses: Mapping[str, str]) -> AsyncIterator[Turns]:
    """Makes an agent with memories and sessions, and takes a turn in each; gives their client."""
    async with AsyncExitStack() as held:
        channels = {
            name: await held.enter_async_context(grpc.aio.insecure_channel(address))
            for name, address in addresses.items()
        }
        operator = (("authorization", f"Bearer {OPERATOR_KEY}"),)
        tenants: Any = TenantServiceStub(channels["registry"])
        wanted = tenant_pb2.Tenant(name=f"bench-{uuid4().hex[:8]}")
        made = await tenants.CreateTenant(tenant_service_pb2.CreateTenantRequest(tenant=wanted), metadata=operator)
        keys: Any = ApiKeyServiceStub(channels["registry"])
        key = await keys.CreateApiKey(
            api_key_service_pb2.CreateApiKeyRequest(display_name="bench"),
            metadata=(*operator, ("minion-tenant", made.tenant.tenant_id)),
        )
        metadata = (("authorization", f"Bearer {key.secret}"),)
        agent_id = await _agent(channels["registry"], metadata)
        await _memories(channels["memory"], metadata, agent_id)
        sessions: Any = SessionServiceStub(channels["session"])
        opened = [
            await sessions.CreateSession(
                session_service_pb2.CreateSessionRequest(agent_id=agent_id, user_id="ann"), metadata=metadata
            )
            for _ in range(_SESSIONS)
        ]
        turns = Turns(channels["gateway"], metadata, [each.session.session_id for each in opened])
        for _ in range(_SESSIONS):
            await turns.stream()
        yield turns


async def _agent(channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...]) -> str:
    agents: Any = AgentServiceStub(channel)
    agent = agent_pb2.Agent(
        name="bench",
        behavior_type="conversational",
        instructions="Be brief.",
        llm=agent_pb2.LlmConfig(model="openai/gpt-4o-mini"),
        # One message of history: the model is shown two, however often a session is used.
        behavior=agent_pb2.BehaviorSettings(
            memory=agent_pb2.MemoryPolicy(recall=True, min_score=0.99), context=agent_pb2.ContextPolicy(max_messages=1)
        ),
    )
    made = await agents.CreateAgent(agent_service_pb2.CreateAgentRequest(agent=agent), metadata=metadata)
    agent_id = str(made.agent.agent_id)
    await agents.ActivateAgent(agent_service_pb2.ActivateAgentRequest(agent_id=agent_id), metadata=metadata)
    return agent_id


async def _memories(channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...], agent_id: str) -> None:
    """Fills the scope that is searched with 1,000 memories."""
    stub: Any = MemoryServiceStub(channel)
    for batch in range(10):
        memories = []
        for n in range(100):
            values = [0.0] * 384
            values[(batch * 100 + n) % 384], values[(batch + n) % 384] = 1.0, 0.5
            memory = memory_pb2.Memory(
                agent_id=agent_id, user_id="ann", type=memory_pb2.MEMORY_TYPE_FACT, content=f"fact {batch} {n}"
            )
            vector = memory_pb2.Embedding(model="local/all-minilm-l6-v2", values=values)
            memories.append(memory_service_pb2.NewMemory(memory=memory, embedding=vector))
        await stub.StoreMemories(memory_service_pb2.StoreMemoriesRequest(memories=memories), metadata=metadata)


@asynccontextmanager
async def providing() -> AsyncIterator[tuple[int, str]]:
    """Runs a provider that answers at once; gives its pid and its base URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "minion_testing.fake_provider",
        "--text",
        "Good day.",
        "--chunks",
        "1",
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert process.stdout is not None
    try:
        yield process.pid, (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()


async def _postmaster(database: ClonedDatabase) -> int:
    connection = await asyncpg.connect(database.admin_dsn)
    try:
        pid: int = await connection.fetchval("SELECT pg_backend_pid()")
        parent = psutil.Process(pid).parent()
        assert parent is not None
        return parent.pid
    finally:
        await connection.close()
