"""F15: finding agents among 100,000 of a tenant, against 1,000 of another.

The registry is a process of its own, with identity, row-level security, metrics and logs on; both tenants' agents stand
in the same tables. What is looked for has the same share of either tenant, but for words that few agents have, of which
there are as many in both.
"""

from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import asyncpg
import grpc
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from minion.registry.v1 import agent_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion_auth import ServiceTokens
from minion_testing.postgres import ClonedDatabase, cluster
from minion_testing.serving import SERVICE_KEY
from uuid_utils.compat import uuid7

from benchmarks.figure import Comparison, Figure, Operation, Options, interleave, run_slice
from benchmarks.serving import serving

ID = "F15"

_SERVICE = "/minion.registry.v1.AgentService"
_MANY, _FEW, _SHORT_MANY = 100_000, 1_000, 5_000
_RATIO_GOAL = 2.0
_PAGE = 50

# Of ten agents five are active; one has the label, one the metadata, one the capability, and
# twenty of each tenant are "odd".
_LOAD = """
INSERT INTO registry.agents (tenant_id, agent_id, name, display_name, description, behavior_type, instructions, llm,
                             capabilities, behavior, metadata, labels, status, create_time)
SELECT $1, gen_random_uuid(), 'agent-' || n, 'Agent ' || n,
       'Answers the questions of customers about parcels and refunds in region ' || n % 50
           || CASE WHEN n <= 20 THEN ', an odd one' ELSE '' END,
       'tool_use', repeat('Be kind and brief. ', 20), '{}',
       ARRAY['capability-' || n % 10, 'common'], '{}',
       jsonb_build_object('team', 'team-' || n % 10, 'size', n % 7),
       jsonb_build_object('shard', 's-' || n % 10, 'tier', 'gold'),
       CASE WHEN n / 10 % 2 = 0 THEN 'active' ELSE 'draft' END, now() - n * interval '1 second'
  FROM generate_series(1, $2::integer) n
"""
_SIDES = (
    """
    INSERT INTO registry.agent_labels (tenant_id, agent_id, key, value, agent_create_time)
    SELECT tenant_id, agent_id, l.key, l.value, create_time FROM registry.agents, jsonb_each_text(labels) l
    """,
    """
    INSERT INTO registry.agent_capabilities (tenant_id, agent_id, capability, agent_create_time)
    SELECT tenant_id, agent_id, c, create_time FROM registry.agents, unnest(capabilities) c
    """,
)


async def measure(options: Options) -> list[Figure]:
    """Measures the latency of one caller for each way of finding agents."""
    many, few = uuid7(), uuid7()
    async with AsyncExitStack() as running:
        served = await running.enter_async_context(cluster(durable=True))
        database = await served.clone()
        await _load(database, {many: _SHORT_MANY if options.short else _MANY, few: _FEW})
        services = await running.enter_async_context(
            serving(database, "registry", pool_min_size="2", pool_max_size="2")
        )
        channel = await running.enter_async_context(grpc.aio.insecure_channel(services["registry"].address))
        figures = []
        for name, method, request, least in _asked():
            ours, theirs = (_Client(channel, tenant_id).asking(method, request, least) for tenant_id in (many, few))
            for warmed in (ours, theirs):
                await run_slice(warmed, seconds=0.5, concurrency=1, pids=())
            pids = [services["registry"].pid]
            compared = await interleave(ours, theirs, rounds=options.rounds, pids=pids, yardstick_pids=pids)
            figures.append(_figure(name, compared))
    return figures


def _asked() -> list[tuple[str, str, Message, int]]:
    """What is asked: a name, the method, the request, and how many it finds at least."""
    team = Struct()
    team.update({"team": "team-3"})
    active = agent_pb2.AGENT_STATUS_ACTIVE
    return [
        (
            "page of agents by status and label",
            "ListAgents",
            pb.ListAgentsRequest(status=active, labels={"shard": "s-3"}, page_size=_PAGE),
            _PAGE,
        ),
        (
            "page of agents by metadata",
            "ListAgents",
            pb.ListAgentsRequest(metadata=team, page_size=_PAGE),
            _PAGE,
        ),
        (
            "search of agents by capability",
            "SearchAgents",
            pb.SearchAgentsRequest(capabilities=["capability-3"], page_size=20),
            20,
        ),
        (
            "search of agents by words that all have",
            "SearchAgents",
            pb.SearchAgentsRequest(query="customer refunds", page_size=20),
            20,
        ),
        (
            "search of agents by a word of 2 in 100",
            "SearchAgents",
            pb.SearchAgentsRequest(query="7", page_size=20),
            20,
        ),
        ("search of agents by a word of 20", "SearchAgents", pb.SearchAgentsRequest(query="odd", page_size=20), 20),
    ]


def _figure(name: str, compared: Comparison) -> Figure:
    value, yardstick, ratio = compared.value(lambda part: part.p50 * 1e3)
    cpu, _, _ = compared.value(lambda part: part.cpu_per_operation)
    return Figure(
        id=ID,
        name=f"{name}: p50",
        value=value,
        unit="ms",
        yardstick=f"the same where a tenant has {_FEW:,}",
        yardstick_value=yardstick,
        ratio=ratio,
        goal=f"ratio <= {_RATIO_GOAL:g}",
        ok=ratio <= _RATIO_GOAL,
        cpu_us_per_op=cpu * 1e6,
        runs=len(compared.ours),
    )


class _Client:
    """A caller that sends and takes bytes, so that what is measured is the service."""

    def __init__(self, channel: grpc.aio.Channel, tenant_id: UUID) -> None:
        self._channel = channel
        self._tokens = ServiceTokens(SERVICE_KEY, "gateway")
        self._tenant_id = tenant_id

    def asking(self, method: str, request: Message, least: int) -> Operation:
        """Gives the call; makes sure that the answer holds what it should."""
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(f"{_SERVICE}/{method}")
        sent = request.SerializeToString()
        answer: Any = getattr(pb, f"{method}Response")

        async def operation() -> object:
            metadata = (("authorization", f"Bearer {self._tokens.mint(self._tenant_id)}"),)
            received = await call(sent, metadata=metadata)
            # A tag, a length and the item: fewer bytes than this can't be so many agents.
            if len(received) < least * 500:
                raise RuntimeError(f"{method} found too little: {answer.FromString(received)}")
            return received

        return operation


async def _load(database: ClonedDatabase, tenants: dict[UUID, int]) -> None:
    """Loads agents from behind; a tenth of the time goes into what the triggers keep for searches."""
    admin = await asyncpg.connect(database.admin_dsn, server_settings={"maintenance_work_mem": "256MB"})
    try:
        # Agents begin as drafts; these are in the midst of their lives.
        await admin.execute("ALTER TABLE registry.agents DISABLE TRIGGER agents_guard")
        for number, (tenant_id, count) in enumerate(tenants.items()):
            await admin.execute(
                "INSERT INTO registry.tenants (tenant_id, name, display_name) VALUES ($1, $2, '')",
                tenant_id,
                f"bench-{number}",
            )
            await admin.execute(_LOAD, tenant_id, count)
        for statement in _SIDES:
            await admin.execute(statement)
        await admin.execute("ALTER TABLE registry.agents ENABLE TRIGGER agents_guard")
        for table in ("agents", "agent_labels", "agent_capabilities", "agent_metadata", "agent_words"):
            await admin.execute(f"VACUUM (ANALYZE) registry.{table}")
    finally:
        await admin.close()
