"""What is counted of tools."""

from collections.abc import Iterable, Iterator

from minion_telemetry.durations import Durations
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from minion_gateway.inference.domain import NANOS_PER_USD
from minion_gateway.tools.domain import Ended

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
# How a tool is reached whose name is nobody's here.
_TRANSPORT = "builtin"


class ToolMetrics(Collector):
    """`tool_duration_seconds` and `tool_cost_usd_total`. A tool's label is that of the builtin, never a tenant's name.

    The numbers are plain ones, written on the event loop alone and read at a scrape: see `minion_telemetry.durations`.
    """

    def __init__(self, registry: CollectorRegistry, builtins: Iterable[str]) -> None:
        self._builtins = frozenset(builtins)
        # The series of what may well be called exist from the start, so that rates are 0 and not absent.
        self._durations = {
            (name, ended.value): Durations(_SECONDS)
            for name in sorted(self._builtins)
            for ended in (Ended.OK, Ended.ERROR)
        }
        self._nanos = 0
        registry.register(self)

    def called(self, builtin: str, ended: Ended, seconds: float) -> None:
        """Counts a call."""
        key = (builtin if builtin in self._builtins else _TRANSPORT, ended.value)
        durations = self._durations.get(key)
        if durations is None:
            durations = self._durations[key] = Durations(_SECONDS)
        durations.observe(seconds)

    def charged(self, cost_nanos: int) -> None:
        """Counts what a call cost, in nano-units of USD."""
        self._nanos += cost_nanos

    def collect(self) -> Iterator[Metric]:
        """Gives the metrics as they are now."""
        duration = HistogramMetricFamily(
            "tool_duration_seconds",
            "Time of calls of tools; outcome ok, error, timeout, canceled (with its run) or refused (never made).",
            labels=("tool", "outcome"),
        )
        # Copied first: the event loop goes on counting while a scrape reads.
        for labels, durations in self._durations.copy().items():
            duration.add_metric(labels, durations.buckets(), durations.seconds)
        yield duration
        yield CounterMetricFamily(
            "tool_cost_usd", "What calls of tools cost, in US dollars.", value=self._nanos / NANOS_PER_USD
        )
