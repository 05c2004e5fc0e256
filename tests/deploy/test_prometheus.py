"""Every query of every dashboard and rule, asked of a real Prometheus that scrapes a real stack while it works."""

import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from deploy.checks import metric_tables, monitoring, promql, rules
from minion.gateway.v1 import inference_pb2, inference_service_pb2, inference_service_pb2_grpc, run_pb2
from minion.memory.v1 import memory_service_pb2, memory_service_pb2_grpc
from minion_testing.fake_provider import FakeProvider
from minion_testing.provider_script import Fault, FaultKind, Reply, Script
from uuid_utils.compat import uuid7

from tests.deploy import monitored
from tests.deploy.monitored import Prometheus
from tests.end_to_end.collector import collecting
from tests.end_to_end.stacks import ROOT, RunningStack, dev, environ, until
from tests.end_to_end.turns import new_agent, new_session, take_turn

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(300)]

_SECONDS = 150.0
_MODEL = "openai/gpt-4o-mini"
# A stack that lives for a minute is asked for the last minute; its rules look back as far as they always do.
_RANGES = {"__rate_interval": "1m", "__interval": "5s", "__range": "2m"}

# What no stack on one machine, up for a minute and with nothing wrong, can have. An entry that is answered all the same
# is a fault of the table.
_NEEDS = {
    "deploy/grafana/dashboards/overview.json: panel 'Certificates', query A": "needs TLS",
    "deploy/prometheus/rules/services.yml: alert MinionCertificateExpires": "needs TLS",
    "deploy/prometheus/rules/runs.yml: alert MinionCostJump": "needs a day of figures",
}
# Metrics that another part of this change brings: take each away when it is there.
_NOT_YET = {
    "db_client_connection_count",
    "db_client_connection_max",
    "db_client_connection_pending_requests",
    "db_client_connection_timeouts_total",
    "db_client_connection_wait_seconds_bucket",
    "minion_build_info",
    "llm_tokens_total",
    "llm_cost_usd_total",
    "llm_unpriced_calls_total",
    "agent_time_seconds_total",
    "tool_duration_seconds_bucket",
    "tool_duration_seconds_count",
    "tool_cost_usd_total",
    "run_recoveries_total",
    "run_leases_lost_total",
    "runs_waiting",
    "runs_waiting_oldest_seconds",
    "memory_searches_total",
    "activities_recorded_total",
    "trace_spans_total",
}


@dataclass(slots=True)
class Watched:
    """A stack with a Prometheus that looks at it, and what it was asked already."""

    stack: RunningStack
    provider: FakeProvider
    prometheus: Prometheus
    answered: set[str] = field(default_factory=set)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    """A stack that works until all queries have an answer, or the time is over."""
    monitored.needed(monitored.PROMETHEUS, monitored.EXPORTER)
    async with AsyncExitStack() as running:
        # The embedded Postgres' own user must get there; pytest's directories are closed to it.
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="minion-test-")))
        directory.chmod(0o755)
        provider = await running.enter_async_context(FakeProvider())
        collector = await running.enter_async_context(collecting())
        env = environ(
            MINION_MODEL_CACHE=str(tmp_path_factory.mktemp("models")),
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.port}",
            OPENAI_BASE_URL=provider.base_url,
            OPENAI_API_KEY="sk-test",
            # The stand-in knows how to draw memories, the fake provider does not.
            MINION_EXTRACTION_MODEL="local/stand-in",
        )
        stack = await running.enter_async_context(dev(directory / ".minion", env=env))
        exporter = await running.enter_async_context(monitored.postgres_exporter(directory, stack.directory))
        targets = {"minion": stack.operations, "postgres": {"": exporter}}
        asked = await running.enter_async_context(monitored.prometheus(directory, targets))
        watched = Watched(stack, provider, asked)
        await _all_scraped(asked)
        await monitored.deadlock(stack.directory)
        await _work_until_answered(watched)
        yield watched


def _queries() -> dict[str, list[str]]:
    """All queries by their places: those of panels as Grafana asks them, those of alerts without their thresholds."""
    series = metric_tables.known_series(ROOT)
    for rule in rules.read(ROOT):
        if rule.record:
            series[rule.record] = promql.read(rule.asked.expression, series).labels
    found = {}
    for asked in monitoring.queries(ROOT):
        expression = asked.filled(_RANGES)
        query = promql.read(expression, series)
        if not query.metrics & _NOT_YET:
            found[asked.place] = list(query.operands) if asked.file.is_relative_to(rules.RULES) else [expression]
    return found


async def _all_scraped(prometheus: Prometheus) -> None:
    async def scraped() -> bool:
        return await prometheus.query('count(up{job=~"minion|postgres"} == 1)') == [6.0]

    await until(scraped, seconds=60.0)


async def _work_until_answered(watched: Watched) -> None:
    """Works in rounds: a series that begins with a round has a rate only after the next."""
    deadline = time.monotonic() + _SECONDS
    queries, prometheus = _queries(), watched.prometheus
    agent_id = (await new_agent(watched.stack, "calculator", "remember")).agent_id
    while time.monotonic() < deadline and not queries.keys() - watched.answered <= _NEEDS.keys():
        await _one_round(watched, agent_id)
        seen = await prometheus.query("timestamp(up{service='gateway'})")

        async def seen_since(before: list[float] = seen) -> bool:
            return await prometheus.query("timestamp(up{service='gateway'})") > before

        await until(seen_since, seconds=30.0)
        for place in queries.keys() - watched.answered:
            if all([await prometheus.query(operand) for operand in queries[place]]):
                watched.answered.add(place)


async def _one_round(watched: Watched, agent_id: str) -> None:
    """A turn with a tool and memory, one that fails, a call that fails, one without a price, an extraction."""
    stack = watched.stack
    calculate = Reply(tool_calls=(("calculator", '{"expression": "6 * 7"}'),))
    watched.provider.push(
        Script(calculate, match="six times", after_tools=False),
        Script(Fault(FaultKind.KEY_REFUSED), match="refuse", times=2),
    )
    session_id = await new_session(stack, agent_id)
    turn = await take_turn(stack, session_id, "I live in Oslo. What is six times seven?")
    assert turn.run.state == run_pb2.RUN_STATE_COMPLETED, turn.run
    failed = await take_turn(stack, session_id, "Please refuse.")
    assert failed.run.state == run_pb2.RUN_STATE_FAILED, failed.run
    async with stack.channel("gateway") as channel:
        inference = inference_service_pb2_grpc.InferenceServiceStub(channel)
        await inference.Complete(_asking("openai/model-of-our-own", "Hello!"), metadata=stack.metadata)
        with pytest.raises(grpc.aio.AioRpcError):
            await inference.Complete(_asking(_MODEL, "Please refuse."), metadata=stack.metadata)
    async with stack.channel("memory") as channel:
        memories = memory_service_pb2_grpc.MemoryServiceStub(channel)
        extract = memory_service_pb2.ExtractMemoriesRequest(session_id=session_id, request_id=str(uuid7()))
        await memories.ExtractMemories(extract, metadata=stack.metadata)


def _asking(model: str, text: str) -> inference_service_pb2.CompleteRequest:
    message = inference_pb2.ChatMessage(role=inference_pb2.CHAT_ROLE_USER, text=text)
    return inference_service_pb2.CompleteRequest(model=model, messages=[message])


async def test_every_query_has_an_answer_or_a_reason(watched: Watched) -> None:
    silent = _queries().keys() - watched.answered - _NEEDS.keys()
    assert silent == set(), f"{len(watched.answered)} of {len(_queries())} were answered"


async def test_what_is_said_to_have_no_answer_has_none(watched: Watched) -> None:
    assert _NEEDS.keys() <= _queries().keys()
    for place in _NEEDS:
        answers = [await watched.prometheus.query(operand) for operand in _queries()[place]]
        assert not all(answers), f"{place} is answered: it doesn't need what the table says"
    for metric in _NOT_YET:
        assert not await watched.prometheus.query(f"count({metric})"), f"{metric} is there"


async def test_prometheus_evaluates_every_rule(watched: Watched) -> None:
    evaluated: list[dict[str, Any]] = []

    async def all_evaluated() -> bool:
        evaluated[:] = await watched.prometheus.rules()
        return all(rule["health"] != "unknown" for rule in evaluated)

    await until(all_evaluated, seconds=30.0)
    assert {rule["name"] for rule in evaluated} == {rule.alert or rule.record for rule in rules.read(ROOT)}
    assert {rule["name"]: rule.get("lastError") for rule in evaluated if rule["health"] != "ok"} == {}


async def test_an_alert_fires_for_what_has_happened(watched: Watched) -> None:
    async def fires() -> bool:
        return bool(await watched.prometheus.query('ALERTS{alertname="MinionPostgresDeadlocks", alertstate="firing"}'))

    await until(fires, seconds=30.0)
    assert not await watched.prometheus.query('ALERTS{alertname=~"Minion(ServiceDown|PostgresDown)"}')
