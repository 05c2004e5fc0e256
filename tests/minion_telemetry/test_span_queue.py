"""A collector that is down costs nothing more and leaks nothing."""

import asyncio
import io
import json
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import grpc
import pytest
from minion_telemetry import Telemetry, TelemetrySettings, configure_logging
from minion_telemetry.otlp import CollectorExporter, NotTakenError
from minion_telemetry.otlp_settings import Destination
from minion_telemetry.span_queue import SpanCounts, SpanQueue
from minion_telemetry.spans import RecordedSpan, SpanMakers
from minion_testing.fault_proxy import FaultProxy, Mode
from minion_testing.serving import free_ports
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry

from tests.minion_telemetry.collector import collecting, until

# So long a collector may take for its answer, and so long the end may take: it waits for a few seconds of its own, and
# a machine may stand still for some more.
_ANSWER_SECONDS, _STOP_SECONDS = 300, 60.0


def lines(log: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def started(endpoint: str) -> Telemetry:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": str(_ANSWER_SECONDS)}
    return Telemetry.start("session", TelemetrySettings.load(environ))


def end_spans(tracer: Tracer, count: int) -> None:
    for number in range(count):
        tracer.start_span(f"span {number}").end()


def counted(registry: CollectorRegistry) -> dict[str, float]:
    return {
        outcome: registry.get_sample_value("trace_spans_total", {"outcome": outcome}) or 0
        for outcome in ("exported", "failed", "dropped")
    }


def exporters() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "minion-spans" and thread.is_alive()}


async def stopped(telemetry: Telemetry) -> None:
    began = monotonic()
    await asyncio.to_thread(telemetry.shutdown)
    assert monotonic() - began < _STOP_SECONDS


async def test_spans_leave_by_themselves_and_are_counted(log: io.BytesIO) -> None:
    before = exporters()
    async with collecting() as collector:
        telemetry = started(collector.endpoint)
        end_spans(telemetry.tracer, 1_200)
        await until(lambda: len(collector.spans) == 1_200)
        await until(lambda: counted(telemetry.registry)["exported"] == 1_200)
        await stopped(telemetry)
    assert counted(telemetry.registry) == {"exported": 1_200, "failed": 0, "dropped": 0}
    await until(lambda: not exporters() - before)
    assert lines(log) == []


async def test_what_ended_just_before_the_end_is_exported() -> None:
    async with collecting() as collector:
        registry = CollectorRegistry()
        exporter = CollectorExporter(Destination(collector.endpoint))
        queue = SpanQueue(exporter, SpanCounts(registry), service="session", stop_seconds=60)
        end_spans(tracing(queue), 3)
        await asyncio.to_thread(queue.shutdown)
        assert [span.name for span in collector.spans] == ["span 0", "span 1", "span 2"]
        assert counted(registry) == {"exported": 3, "failed": 0, "dropped": 0}


async def test_a_collector_far_away_is_reached_at_once(log: io.BytesIO) -> None:
    async with collecting() as collector:
        host, _, port = collector.endpoint.removeprefix("http://").partition(":")
        async with FaultProxy(host, int(port)) as proxy:
            proxy.set_mode(Mode.STALL)
            telemetry = started(f"http://{proxy.address}")
            end_spans(telemetry.tracer, 3)
            flushed = asyncio.create_task(asyncio.to_thread(telemetry.flush))
            await until(lambda: proxy.accepted)
            # Longer than the pause between two attempts, with its jitter: what is under way is given its time.
            await asyncio.sleep(0.8)
            proxy.set_mode(Mode.PASS)
            await until(lambda: counted(telemetry.registry)["exported"] == 3)
            await flushed
            await stopped(telemetry)
            assert proxy.accepted == 1
    assert lines(log) == []


class Gate:
    """Takes spans one batch at a time, when it is let; the first `refusals` of them not."""

    def __init__(self, *, refusals: int = 0) -> None:
        self.refusals = refusals
        self.begun, self.opened = threading.Event(), threading.Event()
        self.taken = 0

    def send(self, spans: Sequence[RecordedSpan]) -> int:
        self.begun.set()
        assert self.opened.wait(60)
        if self.refusals:
            self.refusals -= 1
            raise NotTakenError("UNAVAILABLE", again=True)
        self.taken += len(spans)
        return 0

    def shutdown(self) -> None:
        pass


def tracing(queue: SpanQueue) -> Tracer:
    return SpanMakers(Resource({}), [queue], ratio=1.0).get_tracer("test")


async def test_what_ended_during_an_export_that_the_end_finds_under_way_is_exported() -> None:
    gate, registry = Gate(), CollectorRegistry()
    queue = SpanQueue(gate, SpanCounts(registry), service="session", stop_seconds=60)
    end_spans(tracing(queue), 1)
    assert await asyncio.to_thread(gate.begun.wait, 60)
    end_spans(tracing(queue), 3)
    stopping = asyncio.create_task(asyncio.to_thread(queue.shutdown))
    assert await asyncio.to_thread(queue._stopping.wait, 60)
    gate.opened.set()
    await stopping
    assert counted(registry) == {"exported": 4, "failed": 0, "dropped": 0}
    assert gate.taken == 4


def test_a_batch_whose_end_nobody_waits_for_is_counted_all_the_same() -> None:
    gate, registry = Gate(refusals=1), CollectorRegistry()
    queue = SpanQueue(gate, SpanCounts(registry), service="session", stop_seconds=0.01, cut_seconds=0.01)
    end_spans(tracing(queue), 600)
    assert gate.begun.wait(60)
    queue.shutdown()
    gate.opened.set()
    queue._thread.join(60)
    assert counted(registry) == {"exported": 0, "failed": 0, "dropped": 600}


def test_what_ends_after_the_end_is_counted_too() -> None:
    telemetry = started(f"http://127.0.0.1:{free_ports(1)[0]}")
    telemetry.shutdown()
    end_spans(telemetry.tracer, 3)
    assert counted(telemetry.registry) == {"exported": 0, "failed": 0, "dropped": 3}


class Hearing(io.BytesIO):
    """A log that somebody listens to: `heard` is called once, when a line holds `words`."""

    def __init__(self, words: bytes, heard: Callable[[], None]) -> None:
        super().__init__()
        self._words = words
        self._heard: Callable[[], None] | None = heard

    def write(self, line: Any) -> int:
        heard = self._heard
        if heard is not None and self._words in bytes(line):
            self._heard = None
            heard()
        return super().write(line)


@pytest.mark.usefixtures("log")
async def test_what_is_lost_while_the_log_is_told_of_the_lost_is_told_next() -> None:
    gate, registry = Gate(refusals=1), CollectorRegistry()
    gate.opened.set()
    heard = Hearing(b"takes traces again", lambda: end_spans(tracing(queue), 10))
    configure_logging("info", "json", stream=heard)
    queue = SpanQueue(gate, SpanCounts(registry), service="session", capacity=4, first_wait_seconds=0.01)
    end_spans(tracing(queue), 1)
    await until(lambda: len(lines(heard)) == 3)
    await asyncio.to_thread(queue.shutdown)
    assert [line.get("spans_lost") for line in lines(heard)] == [None, 0, 6]
    assert counted(registry) == {"exported": 5, "failed": 0, "dropped": 6}


async def test_a_span_that_cannot_be_encoded_costs_no_other(log: io.BytesIO) -> None:
    async with collecting() as collector:
        telemetry = started(collector.endpoint)
        for value in ("fine", "half a pair \ud800", 2**63, "fine too"):
            telemetry.tracer.start_span("span", attributes={"value": value}).end()
        await until(lambda: sum(counted(telemetry.registry).values()) == 4)
        await stopped(telemetry)
        assert [span.attributes[0].value.string_value for span in collector.spans] == ["fine", "fine too"]
    assert counted(telemetry.registry) == {"exported": 2, "failed": 2, "dropped": 0}
    assert {line["event"] for line in lines(log)} == {"spans can't be encoded"}
    assert sum(line["count"] for line in lines(log)) == 2


async def test_with_no_collector_spans_are_dropped_beyond_a_bound_and_the_log_gets_one_line(log: io.BytesIO) -> None:
    before = exporters()
    telemetry = started(f"http://127.0.0.1:{free_ports(1)[0]}")
    end_spans(telemetry.tracer, 20_000)
    await until(lambda: lines(log))
    end_spans(telemetry.tracer, 20_000)
    await stopped(telemetry)
    # The thread counts what it was left with, where a machine that stood still has cut the wait for it short.
    await until(lambda: not exporters() - before)
    found = counted(telemetry.registry)
    assert found["exported"] == 0
    assert found["dropped"] + found["failed"] == 40_000
    assert found["failed"] <= 2 * 512
    assert [line["event"] for line in lines(log)] == [
        "the collector takes no traces; calls go on",
        "spans were left behind",
    ]
    assert lines(log)[0]["cause"] == "UNAVAILABLE"
    assert lines(log)[1]["count"] <= 4_096 + 512


async def test_a_collector_that_hangs_holds_nobody_up(log: io.BytesIO) -> None:
    before = exporters()
    async with collecting() as collector:
        collector.hangs = True
        telemetry = started(collector.endpoint)
        end_spans(telemetry.tracer, 600)
        await asyncio.wait_for(collector.begun.wait(), 30)
        # The thread waits for its answer; whoever ends spans does not.
        end_spans(telemetry.tracer, 20_000)
        assert counted(telemetry.registry)["dropped"] >= 20_000 - 4_096
        await stopped(telemetry)
    await until(lambda: not exporters() - before)
    assert counted(telemetry.registry)["exported"] == 0
    assert sum(counted(telemetry.registry).values()) == 20_600


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED])
async def test_a_collector_that_refuses_is_asked_ever_less_and_spoken_of_once(
    log: io.BytesIO, code: grpc.StatusCode
) -> None:
    async with collecting() as collector:
        collector.fault = code
        began = monotonic()
        telemetry = started(collector.endpoint)
        end_spans(telemetry.tracer, 2_000)
        await until(lambda: collector.asked >= 2)
        # Four batches wait, and each second the collector is asked once at most.
        assert collector.asked <= 2 + (monotonic() - began)
        assert [line["cause"] for line in lines(log)] == [code.name]
        collector.fault = None
        # Of the first ones nothing may be left, where the machine was elsewhere for a while.
        end_spans(telemetry.tracer, 1)
        await until(lambda: len(lines(log)) == 2)
        lost = counted(telemetry.registry)["failed"]
        await until(lambda: len(collector.spans) == 2_001 - lost)
        # What may be taken later is kept, what never will be is given up.
        assert (lost == 0) == (code is grpc.StatusCode.UNAVAILABLE)
        assert lines(log)[1]["event"] == "the collector takes traces again"
        assert lines(log)[1]["spans_lost"] == lost
        await stopped(telemetry)


async def test_a_collector_that_comes_back_gets_what_waited() -> None:
    [port] = free_ports(1)
    telemetry = started(f"http://127.0.0.1:{port}")
    end_spans(telemetry.tracer, 10)
    await asyncio.to_thread(telemetry.flush)
    assert counted(telemetry.registry)["exported"] == 0
    async with collecting(port) as collector:
        await until(lambda: len(collector.spans) == 10)
        await until(lambda: counted(telemetry.registry)["exported"] == 10)
        await stopped(telemetry)


async def test_the_version_of_the_conventions_is_stated() -> None:
    async with collecting() as collector:
        telemetry = started(collector.endpoint)
        end_spans(telemetry.tracer, 1)
        await asyncio.to_thread(telemetry.flush)
        await until(lambda: collector.requests)
        await stopped(telemetry)
        [resource] = collector.requests[0].resource_spans
        assert resource.schema_url == "https://opentelemetry.io/schemas/1.44.0"
        assert [scope.schema_url for scope in resource.scope_spans] == [resource.schema_url]


class Failing(SpanExporter):
    """Raises what no exporter should."""

    def __init__(self) -> None:
        self.asked = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked += 1
        raise RuntimeError("a span that can't be encoded")

    def shutdown(self) -> None:
        pass


def test_a_batch_that_cannot_be_encoded_stops_no_other(log: io.BytesIO) -> None:
    exporter = Failing()
    telemetry = Telemetry.start("session", TelemetrySettings(), span_exporters=[exporter])
    end_spans(telemetry.tracer, 2_000)
    telemetry.flush()
    telemetry.shutdown()
    assert exporter.asked >= 4
    assert counted(telemetry.registry) == {"exported": 0, "failed": 2_000, "dropped": 0}
    assert {line["event"] for line in lines(log)} == {"spans can't be exported"}
