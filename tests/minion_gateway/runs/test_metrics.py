"""What is counted of runs: their time and where it went, tools, and runs that changed hands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import orjson
import pytest_asyncio
from minion.gateway.v1 import run_pb2
from minion_gateway.runs.domain import RunState
from minion_postgres import Database
from minion_testing.fake_provider import FakeProvider
from minion_testing.postgres import ClonedDatabase, PostgresCluster
from minion_testing.provider_script import Fault, FaultKind, Reply, Script
from minion_testing.serving import Served

from tests.minion_gateway.runs.dead import accepted, agent, dying, submission
from tests.minion_gateway.runs.stage import Client, Stage, staging, until

_PARTS = ("own", "provider", "tools")
_BEHAVIOURS = ("conversational", "tool_use")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(postgres: ClonedDatabase, model_cache: Path) -> AsyncIterator[Stage]:
    """Services whose gateway nobody else has used, with leases that no busy machine lets lapse."""
    async with staging(postgres, model_cache, lease_seconds=60) as running:
        yield running


def parts(gateway: Served) -> dict[str, float]:
    return {part: gateway.metric("agent_time_seconds_total", part=part) or 0.0 for part in _PARTS}


def called(gateway: Served, tool: str, outcome: str) -> float:
    return gateway.metric("tool_duration_seconds_count", tool=tool, outcome=outcome) or 0.0


def durations(gateway: Served) -> float:
    return sum(gateway.metric("agent_duration_seconds_sum", behavior_type=name) or 0.0 for name in _BEHAVIOURS)


def ended(gateway: Served, state: RunState) -> float:
    labels = [{"behavior_type": name, "state": state.value.lower()} for name in _BEHAVIOURS]
    return sum(gateway.metric("agent_executions_total", **each) or 0.0 for each in labels)


@asynccontextmanager
async def spent(gateway: Served) -> AsyncIterator[dict[str, float]]:
    """Gives the seconds of each part that the runs of a block took, once it is over."""
    before, took = parts(gateway), durations(gateway)
    found: dict[str, float] = {}
    yield found
    found.update({part: seconds - before[part] for part, seconds in parts(gateway).items()})
    # Whatever they are, together they are how long the runs took.
    assert abs(sum(found.values()) - (durations(gateway) - took)) < 1e-6


def test_what_there_may_be_is_there_from_the_start(stage: Stage) -> None:
    gateway = stage.gateway
    for name in _BEHAVIOURS:
        for state in ("completed", "failed", "input_required"):
            assert gateway.metric("agent_executions_total", behavior_type=name, state=state) is not None
        assert gateway.metric("agent_duration_seconds_count", behavior_type=name) is not None
    assert gateway.metric("tool_duration_seconds_count", tool="recall", outcome="error") == 0
    assert gateway.metric("run_recoveries_total") == gateway.metric("run_leases_lost_total") == 0
    assert gateway.metric("session_summaries_total", outcome="skipped") is not None


async def test_the_time_of_a_turn_is_split_into_what_it_waited_for(client: Client, provider: FakeProvider) -> None:
    gateway = client.stage.gateway
    session_id = await client.conversation(tools=("calculator", "clock"))
    calls = (("calculator", '{"expression": "6*7"}'), ("clock", "{}"), ("calculator", '{"expression": "1/0"}'))
    provider.push(Reply(tool_calls=calls, first_byte_seconds=0.3), Reply("It is 42.", first_byte_seconds=0.2))
    before = [called(gateway, "calculator", outcome) for outcome in ("ok", "error")]
    async with spent(gateway) as found:
        run = await client.create(session_id, "what is 6*7?")
        assert run.state == run_pb2.RUN_STATE_COMPLETED
    assert found["provider"] >= 0.5
    assert found["tools"] > 0
    assert found["own"] > 0
    assert [called(gateway, "calculator", outcome) for outcome in ("ok", "error")] == [each + 1 for each in before]


async def test_a_run_that_fails_has_its_time_counted_too(client: Client, provider: FakeProvider) -> None:
    gateway = client.stage.gateway
    failed = ended(gateway, RunState.FAILED)
    session_id = await client.conversation(behavior_type="conversational")
    provider.push(Fault(FaultKind.CONTEXT_TOO_LONG))
    async with spent(gateway) as found:
        run = await client.create(session_id)
        assert run.state == run_pb2.RUN_STATE_FAILED
    assert found["provider"] > 0
    assert found["tools"] == 0
    assert ended(gateway, RunState.FAILED) == failed + 1


async def test_tools_that_cost_are_summed_and_a_tool_of_a_tenants_name_is_the_builtins(
    client: Client, provider: FakeProvider
) -> None:
    gateway = client.stage.gateway
    agent_id = await client.agent()
    await client.bind(agent_id, await client.tool("clock", name="ada_lovelace", cost_per_call_nanos=2_500_000))
    provider.push(Reply(tool_calls=(("ada_lovelace", "{}"), ("ada_lovelace", '{"zone": 1}'))), Reply("Late."))
    cost = gateway.metric("tool_cost_usd_total") or 0.0
    before = [called(gateway, "clock", outcome) for outcome in ("ok", "refused")]
    await client.create(await client.session(agent_id))
    assert abs((gateway.metric("tool_cost_usd_total") or 0.0) - cost - 0.0025) < 1e-9
    assert [called(gateway, "clock", outcome) for outcome in ("ok", "refused")] == [each + 1 for each in before]
    assert gateway.metric("tool_duration_seconds_count", tool="ada_lovelace", outcome="ok") is None


async def test_calls_at_the_same_time_count_once(client: Client, provider: FakeProvider) -> None:
    """Four searches of memories, each of which waits for the provider's vector: together they take as long as one."""
    gateway = client.stage.gateway
    session_id = await client.conversation(tools=("recall",))
    wanted = tuple(("recall", orjson.dumps({"query": f"tea {number}"}).decode()) for number in range(4))
    provider.push(Reply(tool_calls=wanted), Reply("None."))
    before = called(gateway, "recall", "ok")
    sums = gateway.metric("tool_duration_seconds_sum", tool="recall", outcome="ok") or 0.0
    async with spent(gateway) as found:
        await client.create(session_id, "what do you know?")
    together = (gateway.metric("tool_duration_seconds_sum", tool="recall", outcome="ok") or 0.0) - sums
    assert called(gateway, "recall", "ok") == before + 4
    assert 0 < found["tools"] < together


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def narrow(postgres_cluster: PostgresCluster, model_cache: Path) -> AsyncIterator[tuple[Stage, Database]]:
    """Services whose gateway drives one run at a time, and their database as its owner."""
    database = await postgres_cluster.clone()
    async with (
        staging(database, model_cache, maximum_runs=1, lease_seconds=30) as running,
        await database.connect("gateway", "owner") as owner,
    ):
        yield running, owner


async def test_runs_that_wait_for_a_replica_are_told_and_so_is_who_takes_them_over(
    narrow: tuple[Stage, Database],
) -> None:
    stage, _ = narrow
    gateway = stage.gateway

    def gauge(name: str) -> float:
        return gateway.metric(name) or 0.0

    async with Client(stage) as client, dying(stage.database, lease_seconds=0.1) as dead:
        before, asked = gauge("run_recoveries_total"), len(stage.provider.ledger.asked)
        stage.provider.push(Script(Fault(FaultKind.STALL), match="wait here"))
        stalled = asyncio.create_task(client.create(await client.conversation(), "wait here"))
        await until(lambda: _now(len(stage.provider.ledger.asked) > asked))
        assert gauge("run_leases_held") == 1
        session_id = await client.conversation()
        who = agent(agent_id=await client.agent_of(session_id))
        _, run = await accepted(dead, submission(client.tenant_id, session_id, who))
        await until(lambda: _now(gauge("runs_waiting") == 1))
        assert gauge("runs_waiting_oldest_seconds") > 0
        stage.provider.release()
        await stalled

        async def over() -> bool:
            return (await client.get(str(run.run_id))).state == run_pb2.RUN_STATE_COMPLETED

        await until(over)
        assert gauge("run_recoveries_total") > before
        await until(lambda: _now(gauge("runs_waiting") == gauge("runs_waiting_oldest_seconds") == 0))


async def test_a_run_that_another_replica_took_is_counted_as_lost(narrow: tuple[Stage, Database]) -> None:
    stage, owner = narrow
    gateway = stage.gateway
    async with Client(stage) as client:
        before, asked = gateway.metric("run_leases_lost_total") or 0.0, len(stage.provider.ledger.asked)
        stage.provider.push(Script(Fault(FaultKind.STALL), match="wait here"))
        session_id = await client.conversation()
        running = asyncio.create_task(client.stream(session_id, "wait here"))
        await until(lambda: _now(len(stage.provider.ledger.asked) > asked))
        async with owner.transaction(None) as transaction:
            taken = await transaction.execute(
                "UPDATE gateway.runs SET epoch = epoch + 1, owner = $2, lease_until = now() + interval '1 second'"
                " WHERE session_id = $1",
                UUID(session_id),
                uuid4(),
            )
        assert taken == 1
        await until(lambda: _now((gateway.metric("run_leases_lost_total") or 0.0) > before))
        # Nobody renews the other's lease: the run comes back, and ends.
        assert (await running)[-1].run_finished.run.state == run_pb2.RUN_STATE_COMPLETED


async def _now(holds: bool) -> bool:
    return holds
