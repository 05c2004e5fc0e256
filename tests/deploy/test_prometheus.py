"""Every query of every dashboard and rule, asked of a real Prometheus that scrapes a real stack while it works."""

import functools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import pytest_asyncio
from minion.gateway.v1 import inference_pb2, inference_service_pb2, inference_service_pb2_grpc, run_pb2
from minion.memory.v1 import memory_service_pb2, memory_service_pb2_grpc
from minion_testing.fake_provider import FakeProvider
from minion_testing.provider_script import Fault, FaultKind, Reply, Script
from uuid_utils.compat import uuid7

from deploy.checks import metric_tables, monitoring, promql, rules
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

# What no stack on one machine, up for a minute and with nothing wrong, can have: by the place of the query, and a part
# of it where the rest has an answer. An entry that is answered all the same is a fault of the table.
_NEEDS = {
    ("deploy/grafana/dashboards/overview.json: panel 'Certificates', query A", ""): "needs TLS",
    ("deploy/prometheus/rules/services.yml: alert MinionCertificateExpires", ""): "needs TLS",
    ("deploy/prometheus/rules/services.yml: alert MinionServiceMissing", ""): "needs a service that is gone",
    ("deploy/prometheus/rules/services.yml: alert MinionSpansLost", "offset 15m"): "needs a quarter of an hour",
    ("deploy/prometheus/rules/runs.yml: alert MinionCallsUnpriced", "offset 1h"): "needs an hour",
    ("deploy/prometheus/rules/runs.yml: alert MinionCostJump", "offset"): "needs a day",
}


@dataclass(frozen=True, slots=True)
class Question:
    """What Prometheus is asked: a panel's query as Grafana asks it, or what a rule compares, without the threshold."""

    place: str
    expression: str

    @property
    def need(self) -> tuple[str, str] | None:
        """The entry of the table that says why it has no answer."""
        return next((key for key in _NEEDS if key[0] == self.place and key[1] in self.expression), None)


@dataclass(slots=True)
class Watched:
    """A stack with a Prometheus that looks at it, and what that has answered."""

    stack: RunningStack
    provider: FakeProvider
    prometheus: Prometheus
    answered: set[Question] = field(default_factory=set)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    """A stack that works until all queries have an answer, or the time is over."""
    monitored.needed(monitored.PROMETHEUS, monitored.EXPORTER)
    async with AsyncExitStack() as running:
        directory = running.enter_context(monitored.open_directory())
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


@functools.cache
def _questions() -> frozenset[Question]:
    """All there is to ask."""
    series = metric_tables.known_series(ROOT)
    for rule in rules.read(ROOT):
        if rule.record:
            series[rule.record] = promql.read(rule.asked.expression, series).labels
    found = set()
    for asked in monitoring.queries(ROOT):
        expression = asked.filled(_RANGES)
        is_rule = asked.file.is_relative_to(rules.RULES)
        for part in promql.read(expression, series).operands if is_rule else (expression,):
            found.add(Question(asked.place, part))
    return frozenset(found)


async def _all_scraped(prometheus: Prometheus) -> None:
    async def scraped() -> bool:
        return await prometheus.query('count(up{job=~"minion|postgres"} == 1)') == [6.0]

    await until(scraped, seconds=60.0)


async def _work_until_answered(watched: Watched) -> None:
    """Works in rounds: a series that begins with a round has a rate only after the next."""
    deadline = time.monotonic() + _SECONDS
    prometheus = watched.prometheus
    wanted = {question for question in _questions() if question.need is None}
    agent_id = (await new_agent(watched.stack, "calculator", "remember")).agent_id
    while time.monotonic() < deadline and wanted - watched.answered:
        await _one_round(watched, agent_id)
        seen = await prometheus.query("timestamp(up{service='gateway'})")

        async def seen_since(before: list[float] = seen) -> bool:
            return await prometheus.query("timestamp(up{service='gateway'})") > before

        await until(seen_since, seconds=30.0)
        for question in wanted - watched.answered:
            if await prometheus.query(question.expression):
                watched.answered.add(question)


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
    silent = {question for question in _questions() if question.need is None} - watched.answered
    assert sorted((question.place, question.expression) for question in silent) == []


async def test_what_is_said_to_have_no_answer_has_none(watched: Watched) -> None:
    for question in _questions():
        if question.need is not None:
            assert await watched.prometheus.query(question.expression) == [], f"{question} is answered"
    unused = _NEEDS.keys() - {question.need for question in _questions()}
    assert not unused, "no such query"


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
    assert not await watched.prometheus.query(
        'ALERTS{alertname=~"Minion(Service|Postgres(Exporter)?)Down", alertstate="firing"}'
    )
