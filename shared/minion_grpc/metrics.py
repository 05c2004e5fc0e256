"""Rate, errors and duration of every RPC, under the names of go-grpc-prometheus, which dashboards know.

The numbers are plain integers, written on the event loop alone and read at a scrape: prometheus_client's own counters
take a lock and a dozen calls for each of the three updates that an RPC makes.
"""

from collections.abc import Iterator

import grpc
from minion_telemetry.durations import Durations
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_METHOD_LABELS = ("grpc_type", "grpc_service", "grpc_method")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class MethodMetrics:
    """The metrics of one method."""

    __slots__ = ("by_code", "durations", "labels", "starts")

    def __init__(self, labels: tuple[str, str, str]) -> None:
        self.labels = labels
        self.starts = 0
        # The success series exists from the start, so that rates are 0 and not absent.
        self.by_code: dict[str, int] = {grpc.StatusCode.OK.name: 0}
        self.durations = Durations(_SECONDS)

    def started(self) -> None:
        """Counts a call that begins."""
        self.starts += 1

    def handled(self, code: str, seconds: float) -> None:
        """Counts a call that ended with a status code (its name), and its duration."""
        self.by_code[code] = self.by_code.get(code, 0) + 1
        self.durations.observe(seconds)


class RpcMetrics(Collector):
    """The metrics of one server; methods that it doesn't serve never become labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._methods: dict[tuple[str, str], MethodMetrics] = {}
        registry.register(self)

    def method(self, kind: str, service: str, name: str) -> MethodMetrics:
        """Gives the metrics of one method, which are there from now on."""
        made = self._methods.get((service, name))
        if made is None:
            made = self._methods[service, name] = MethodMetrics((kind, service, name))
        return made

    def collect(self) -> Iterator[Metric]:
        """Gives the metrics as they are now."""
        started = CounterMetricFamily("grpc_server_started", "RPCs started on the server.", labels=_METHOD_LABELS)
        handled = CounterMetricFamily(
            "grpc_server_handled",
            "RPCs completed on the server, whatever the outcome.",
            labels=(*_METHOD_LABELS, "grpc_code"),
        )
        seconds = HistogramMetricFamily(
            "grpc_server_handling_seconds", "Time from the start of an RPC to its end.", labels=_METHOD_LABELS
        )
        # Copied first: the event loop goes on counting while a scrape reads.
        for method in self._methods.copy().values():
            started.add_metric(method.labels, method.starts)
            for code, count in method.by_code.copy().items():
                handled.add_metric((*method.labels, _spelled(code)), count)
            # A histogram has seventeen series: only what is called gets one.
            if method.starts:
                seconds.add_metric(method.labels, method.durations.buckets(), method.durations.seconds)
        yield from (started, handled, seconds)


def kind_of(*, request_streaming: bool, response_streaming: bool) -> str:
    """Names a method's kind, as go-grpc-prometheus does."""
    return {
        (False, False): "unary",
        (False, True): "server_stream",
        (True, False): "client_stream",
        (True, True): "bidi_stream",
    }[request_streaming, response_streaming]


def _spelled(code: str) -> str:
    # As Go spells them: NotFound, not NOT_FOUND, and two that follow no rule.
    return {"OK": "OK", "CANCELLED": "Canceled"}.get(code) or code.title().replace("_", "")
