from collections.abc import Iterator
from http.client import HTTPConnection

import pytest
from minion_errors import Unavailable
from minion_telemetry import OperationsServer
from prometheus_client import CollectorRegistry, Counter


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


def test_metrics_that_are_off_are_not_found(readiness: Readiness) -> None:
    server = OperationsServer("127.0.0.1", 0, None, readiness)
    server.start()
    assert get(server, "/metrics")[0] == 404
    server.stop()
    server.stop()
