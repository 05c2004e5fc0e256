"""Rate, errors and duration of every RPC, under the names of go-grpc-prometheus, which dashboards know."""

import grpc
from prometheus_client import CollectorRegistry, Counter, Histogram

_METHOD_LABELS = ("grpc_type", "grpc_service", "grpc_method")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class RpcMetrics:
    """The metrics of one server; methods that it doesn't serve never become labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._started = Counter("grpc_server_started", "RPCs started on the server.", _METHOD_LABELS, registry=registry)
        self._handled = Counter(
            "grpc_server_handled",
            "RPCs completed on the server, whatever the outcome.",
            (*_METHOD_LABELS, "grpc_code"),
            registry=registry,
        )
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "Time from the start of an RPC to its end.",
            _METHOD_LABELS,
            buckets=_SECONDS,
            registry=registry,
        )

    def method(self, kind: str, service: str, name: str) -> "MethodMetrics":
        """Gives the metrics of one method, with its labels resolved once for all calls."""
        labels = (kind, service, name)
        return MethodMetrics(self._started.labels(*labels), self._handled, self._seconds.labels(*labels), labels)


class MethodMetrics:
    """The metrics of one method."""

    __slots__ = ("_by_code", "_handled", "_labels", "_seconds", "_started")

    def __init__(self, started: Counter, handled: Counter, seconds: Histogram, labels: tuple[str, str, str]) -> None:
        self._started = started
        self._handled = handled
        self._seconds = seconds
        self._labels = labels
        # The success series exists from the start, so that rates are 0 and not absent.
        self._by_code: dict[grpc.StatusCode, Counter] = {
            grpc.StatusCode.OK: handled.labels(*labels, _spelled(grpc.StatusCode.OK))
        }

    def started(self) -> None:
        """Counts a call that begins."""
        self._started.inc()

    def handled(self, code: grpc.StatusCode, seconds: float) -> None:
        """Counts a call that ended, and its duration."""
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._handled.labels(*self._labels, _spelled(code))
        counter.inc()
        self._seconds.observe(seconds)


def _spelled(code: grpc.StatusCode) -> str:
    # As Go spells them: NotFound, not NOT_FOUND, and two that follow no rule.
    special = {grpc.StatusCode.OK: "OK", grpc.StatusCode.CANCELLED: "Canceled"}
    return special.get(code) or code.name.title().replace("_", "")
