import asyncio
import threading
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest
from minion_errors import Unavailable
from minion_telemetry import OperationsServer
from minion_testing.scraping import scraped_meanwhile
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Readiness:
    """A flag that the tests set."""

    def __init__(self) -> None:
        self.ready = False

    def __call__(self) -> bool:
        return self.ready


@pytest.fixture
def readiness() -> Readiness:
    """Says not ready, at first."""
    return Readiness()


@pytest.fixture
def operations(readiness: Readiness) -> Iterator[OperationsServer]:
    """A running operations port."""
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc()
    server = OperationsServer("127.0.0.1", 0, registry, readiness)
    server.start()
    yield server
    server.stop()


def get(operations: OperationsServer, path: str, method: str = "GET") -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", operations.port, timeout=60)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_metrics_and_health_are_served(operations: OperationsServer) -> None:
    status, text = get(operations, "/metrics")
    assert status == 200
    assert "things_total 1.0" in text
    assert get(operations, "/healthz") == (200, "ok\n")
    assert get(operations, "/healthz", "HEAD") == (200, "")


def test_readiness_follows_the_service(operations: OperationsServer, readiness: Readiness) -> None:
    assert get(operations, "/readyz") == (503, "not ready\n")
    readiness.ready = True
    assert get(operations, "/readyz") == (200, "ready\n")


def test_readiness_lists_addresses(readiness: Readiness) -> None:
    server = OperationsServer("127.0.0.1", 0, None, readiness, lambda: {"tls": "127.0.0.1:1", "mtls": "127.0.0.1:2"})
    server.start()
    assert get(server, "/readyz") == (503, "not ready\n")
    readiness.ready = True
    assert get(server, "/readyz") == (200, "ready\ntls 127.0.0.1:1\nmtls 127.0.0.1:2\n")
    server.stop()


def test_nothing_else_is_served(operations: OperationsServer) -> None:
    for path in ("/", "/metrics/..", "/etc/passwd", "/debug"):
        assert get(operations, path)[0] == 404
    assert get(operations, "/metrics", "POST")[0] == 501


def test_a_taken_port_is_an_error_that_names_it(operations: OperationsServer, readiness: Readiness) -> None:
    with pytest.raises(Unavailable, match=f"{operations.port} is in use") as fault:
        OperationsServer("127.0.0.1", operations.port, CollectorRegistry(), readiness).start()
    assert fault.value.reason == "PORT_UNAVAILABLE"


async def test_a_scrape_that_takes_long_holds_nobody_up(readiness: Readiness) -> None:
    asked, answer = threading.Event(), threading.Event()

    class Slow(Collector):
        def collect(self) -> Iterator[Metric]:
            asked.set()
            # The event loop alone lets it go: one that stood still would be waited for in vain.
            assert answer.wait(60)
            yield GaugeMetricFamily("slow", "Slow.", value=1)

        def describe(self) -> Iterator[Metric]:
            yield GaugeMetricFamily("slow", "Slow.")

    registry = CollectorRegistry()
    registry.register(Slow())
    server = OperationsServer("127.0.0.1", 0, registry, readiness)
    server.start()
    try:
        scraping = asyncio.create_task(asyncio.to_thread(get, server, "/metrics"))
        assert await asyncio.to_thread(asked.wait, 60)
        assert await asyncio.to_thread(get, server, "/healthz") == (200, "ok\n")
        answer.set()
        status, text = await scraping
    finally:
        answer.set()
        server.stop()
    assert (status, "slow 1.0" in text) == (200, True)


def test_a_scrape_stands_what_is_added_meanwhile() -> None:
    registry = CollectorRegistry()
    counter = Counter("things", "Things.", ("kind",), registry=registry)
    texts = scraped_meanwhile(registry, lambda number: counter.labels(str(number)).inc(), rounds=3_000)
    assert texts[-1].count("things_total{") == 3_000


def test_metrics_that_are_off_are_not_found(readiness: Readiness) -> None:
    server = OperationsServer("127.0.0.1", 0, None, readiness)
    server.start()
    assert get(server, "/metrics")[0] == 404
    server.stop()
    server.stop()
