"""What a running stack shows at /metrics: what is listed and nothing else, and no more of it whatever callers do."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
import pytest_asyncio
from minion.gateway.v1 import inference_pb2, inference_service_pb2, run_pb2, run_service_pb2
from minion.gateway.v1.inference_service_pb2_grpc import InferenceServiceStub
from minion.memory.v1 import memory_service_pb2
from minion.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from minion.registry.v1 import agent_pb2
from minion_memory.extraction.metrics import ExtractionMetrics
from minion_postgres import SCHEMAS
from minion_testing.postgres import ClonedDatabase
from minion_testing.provider_script import Reply, Script
from minion_testing.scraping import scrape
from minion_testing.serving import Served
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.architecture.contract import methods
from tests.architecture.metrics_table import listed
from tests.end_to_end.stacks import RunningStack, until
from tests.end_to_end.turns import new_agent, new_session, take_turn
from tests.minion_gateway.runs.stage import Client, Stage, staging

# What a service may have, whatever its callers do, and what each model adds that the operator or the price list names
# (docs/metrics.md says so). Most of it is the buckets of methods' durations, which come with their first calls.
_MOST_SERIES = 1_500
_MOST_SERIES_A_MODEL = 60
_PUBLIC_MODELS = ("gpt-4.1", "gpt-4.1-2025-04-14", "gpt-4o-2024-11-20")
_KNOWN_MODELS = ("gpt-4o-mini", "gpt-4o", "gpt-4.1", "text-embedding-3-small")
_LOCAL_MODELS = ("local/stand-in", "local/all-minilm-l6-v2")
_KNOWN_METHODS = {method.name for method in methods()}
_MODELS = 40
_METHODS = 20
_TENANTS = 3
_AGENTS = 3
_UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class Shown:
    """A metric as a service shows it."""

    type: str
    labels: frozenset[str]


def shown(text: str) -> dict[str, Shown]:
    """Reads the metrics of a service, by name."""
    found: dict[str, Shown] = {}
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        samples = f"{name}_(?:bucket|sum|count)" if kind == "histogram" else name
        labels = {
            label
            for line in re.findall(rf"^{samples}{{(.*)}} \S+$", text, re.MULTILINE)
            for label in re.findall(r'(?:^|,)([a-z_]+)="', line)
        }
        found[name] = Shown(kind, frozenset(labels - {"le"}))
    return found


def series(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def values(text: str) -> Iterator[str]:
    """Yields the values of all labels."""
    for line in series(text):
        yield from re.findall(r'="((?:[^"\\]|\\.)*)"', line)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def texts(stack: RunningStack) -> dict[str, str]:
    """What each service of a live stack shows after a turn whose audit has arrived."""
    agent = await new_agent(stack, "calculator", "remember")
    await take_turn(stack, await new_session(stack, agent.agent_id), "What is 6 * 7?")

    async def audited() -> bool:
        text = await asyncio.to_thread(scrape, stack.operations["activity"])
        return re.search(r"^activities_recorded_total [1-9]", text, re.MULTILINE) is not None

    await until(audited)
    return {service: await asyncio.to_thread(scrape, address) for service, address in stack.operations.items()}


def test_what_a_stack_shows_is_listed_and_what_is_listed_it_shows(texts: dict[str, str]) -> None:
    found = {service: shown(text) for service, text in texts.items()}
    assert set(found) == set(SCHEMAS)
    rows = listed()
    for service, metrics in found.items():
        wanted = {name for name, row in rows.items() if service in row.services}
        assert set(metrics) == wanted, service
        for name, metric in metrics.items():
            assert metric.type == rows[name].type, name
            # One that has no series yet shows no labels: tests/architecture compares those with the code.
            assert metric.labels in (rows[name].labels, frozenset()), (service, name)


async def test_prometheus_reads_it_in_the_format_that_it_asks_for(stack: RunningStack) -> None:
    def asked(address: str) -> str:
        with closing(HTTPConnection(address, timeout=60)) as connection:
            connection.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
            answer = connection.getresponse()
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
            return answer.read().decode()

    for address in stack.operations.values():
        text = await asyncio.to_thread(asked, address)
        families = {family.name for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]
        assert {"grpc_server_started", "db_client_connection_wait_seconds", "minion_build"} <= families


def test_what_is_counted_counts(texts: dict[str, str]) -> None:
    def total(service: str, pattern: str) -> float:
        return sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", texts[service], re.MULTILINE))

    assert total("gateway", r'agent_time_seconds_total{part="own"}') > 0
    assert total("gateway", r'llm_tokens_total{kind="input",model="local/stand-in",provider="local"}') > 0
    assert total("gateway", r'tool_duration_seconds_count{outcome="ok",tool="calculator"}') >= 1
    assert total("memory", r"memory_searches_total{.*}") >= 1
    for service in SCHEMAS:
        # Idle or used: whoever scrapes may come while a worker's statement runs.
        assert total(service, r"db_client_connections{.*}") >= 1, service
        assert total(service, r"db_client_connection_wait_seconds_count") >= 1, service
    parts = total("gateway", r"agent_time_seconds_total{.*}")
    assert parts == pytest.approx(total("gateway", r"agent_duration_seconds_sum{.*}"), rel=1e-6)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(postgres: ClonedDatabase, model_cache: str) -> AsyncIterator[Stage]:
    """Five services and a provider that answers by any model's name."""
    async with staging(postgres, Path(model_cache), lease_seconds=60) as running:
        yield running


async def test_whatever_callers_do_a_service_has_no_more_series(stage: Stage) -> None:
    said = await vary(stage)
    first = {name: generate_latest(served.telemetry.registry).decode() for name, served in stage.services.items()}
    said += await vary(stage)
    second = {name: generate_latest(served.telemetry.registry).decode() for name, served in stage.services.items()}
    for service, text in second.items():
        models = set(re.findall(r'[{,]model="([^"]+)"', text))
        assert models <= {f"openai/{name}" for name in _KNOWN_MODELS} | set(_LOCAL_MODELS) | {"other"}
        assert len(series(text)) < _MOST_SERIES + _MOST_SERIES_A_MODEL * len(models), service
        assert set(re.findall(r'grpc_method="([^"]*)"', text)) <= _KNOWN_METHODS, service
        # What comes up for the first time may add a histogram or two; of the models' names there were more.
        assert _own(text) - _own(first[service]) < _MODELS, service
        for value in values(text):
            assert not _UUID.search(value), (service, value)
            assert "@" not in value, (service, value)
            assert not [each for each in said if each in value], (service, value)


def _own(text: str) -> int:
    """Counts the series but for those of RPCs, whose methods and codes are the contract's and gRPC's."""
    return sum(1 for line in series(text) if not line.startswith("grpc_"))


async def vary(stage: Stage) -> list[str]:
    """Does what tenants do, each time with other names throughout; returns what they wrote."""
    said = [f"acme{uuid4().hex[:10]}" for _ in range(_TENANTS)]
    for mark in said:
        async with Client(stage, user_id=f"ada.{mark}@example.org") as client:
            for number in range(_AGENTS):
                await _turn(client, f"{mark}{number}")
            models: Any = InferenceServiceStub(client.channel("gateway"))
            for number in range(_MODELS // _TENANTS + 1):
                await models.Complete(_question(f"openai/{mark}-{number}@example.org"))
                await models.Complete(_question(f"openai/{uuid4()}"))
            for name in _PUBLIC_MODELS:
                await models.Complete(_question(f"openai/{name}"))
            for model in (f"{mark}/x", f"local/{mark}"):
                with pytest.raises(grpc.aio.AioRpcError):
                    await models.Complete(_question(model))
            memories: Any = MemoryServiceStub(client.channel("memory"))
            with pytest.raises(grpc.aio.AioRpcError) as unknown:
                await memories.GetMemory(memory_service_pb2.GetMemoryRequest(memory_id=str(uuid4())))
            assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    for served in stage.services.values():
        for number in range(_METHODS):
            await _call_nothing(served, f"{said[0]}{number}")
    return said


async def _turn(client: Client, mark: str) -> None:
    """One turn of a new agent, with a tool and a model of the tenant's own names."""
    agent_id = await client.agent(
        model=f"openai/{mark}-{uuid4().hex}",
        behavior=agent_pb2.BehaviorSettings(memory=agent_pb2.MemoryPolicy(recall=True)),
    )
    await client.bind(agent_id, await client.tool("clock", name=mark, cost_per_call_nanos=1_000))
    client.stage.provider.push(Script(Reply(tool_calls=((mark, "{}"), (f"no_{mark}", "{}"))), match=mark))
    run = await client.create(await client.session(agent_id), f"I am {mark}, write to {mark}@example.org")
    assert run.state == run_pb2.RUN_STATE_COMPLETED
    with pytest.raises(grpc.aio.AioRpcError):
        await client.runs.CreateRun(run_service_pb2.CreateRunRequest(session_id=str(uuid4()), text=mark))


async def _call_nothing(served: Served, mark: str) -> None:
    """Calls methods that there are none of, and one with a credential that is none."""
    package = f"/minion.{served.service}.v1"
    async with served.channel(f"mnk_{mark}{'x' * 40}") as channel:
        for path in (f"{package}.{mark}/{mark}", f"{package}.RunService/{uuid4()}", f"/{uuid4()}/{mark}"):
            method: Any = channel.unary_unary(path)
            with pytest.raises(grpc.aio.AioRpcError):
                await method(b"")


def _question(model: str) -> inference_service_pb2.CompleteRequest:
    message = inference_pb2.ChatMessage(role=inference_pb2.CHAT_ROLE_USER, text="hello")
    return inference_service_pb2.CompleteRequest(model=model, messages=[message])


def test_an_extractor_that_an_agent_invents_is_no_series() -> None:
    registry = CollectorRegistry()
    metrics = ExtractionMetrics(registry)
    before = len(series(generate_latest(registry).decode()))
    for number in range(50):
        metrics.ended(f"ada{number}@example.org", "failed")
        metrics.refused(f"ada{number}@example.org", 1)
    text = generate_latest(registry).decode()
    assert "example.org" not in text
    assert len(series(text)) == before + 2
