"""Rate, errors and duration of every RPC, under the names of go-grpc-prometheus, which dashboards know.

The numbers are plain integers, written on the event loop alone and read at a scrape: prometheus_client's own counters
take a lock and a dozen calls for each of the three updates that an RPC makes.
"""

from bisect import bisect_left
from collections.abc import Iterator

import grpc
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_METHOD_LABELS = ("grpc_type", "grpc_service", "grpc_method")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class MethodMetrics:
    """The metrics of one method."""

    __slots__ = ("buckets", "by_code", "labels", "seconds", "starts")

    def __init__(self, labels: tuple[str, str, str]) -> None:
        self.labels = labels
        self.starts = 0
        # The success series exists from the start, so that rates are 0 and not absent.
        self.by_code: dict[str, int] = {grpc.StatusCode.OK.name: 0}
        self.buckets = [0] * (len(_SECONDS) + 1)
        self.seconds = 0.0

    def started(self) -> None:
        """Counts a call that begins."""
        self.starts += 1

    def handled(self, code: str, seconds: float) -> None:
        """Counts a call that ended with a status code (its name), and its duration."""
        self.by_code[code] = self.by_code.get(code, 0) + 1
        self.buckets[bisect_left(_SECONDS, seconds)] += 1
        self.seconds += seconds


class RpcMetrics(Collector):
    """The metrics of one server; methods that it doesn't serve never become labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._methods: list[MethodMetrics] = []
        registry.register(self)

    def method(self, kind: str, service: str, name: str) -> MethodMetrics:
        """Gives the metrics of one method."""
        made = MethodMetrics((kind, service, name))
        self._methods.append(made)
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
        for method in list(self._methods):
            started.add_metric(method.labels, method.starts)
            for code, count in list(method.by_code.items()):
                handled.add_metric((*method.labels, _spelled(code)), count)
            seconds.add_metric(method.labels, _cumulative(list(method.buckets)), method.seconds)
        yield from (started, handled, seconds)


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    found, total = [], 0
    for bound, count in zip((*_SECONDS, float("inf")), buckets, strict=True):
        total += count
        found.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
    return found


def _spelled(code: str) -> str:
    # As Go spells them: NotFound, not NOT_FOUND, and two that follow no rule.
    return {"OK": "OK", "CANCELLED": "Canceled"}.get(code) or code.title().replace("_", "")
