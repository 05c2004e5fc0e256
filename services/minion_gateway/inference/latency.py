"""`llm_latency_seconds`: how long models take, by model and outcome."""

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Histogram

from minion_gateway.inference.domain import Operation

# Model names come from callers: beyond these many, a series is called `other`.
_MOST_NAMES = 100
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Timing:
    """One call under way."""

    __slots__ = ("_begun", "_latency", "_model", "_operation", "_provider")

    def __init__(self, latency: "ModelLatency", operation: Operation, model: str, provider: str) -> None:
        self._latency = latency
        self._operation = operation
        self._model = model
        self._provider = provider
        self._begun = time.perf_counter()

    def end(self, outcome: str) -> None:
        """Counts the call; `outcome` is ok, error or canceled."""
        seconds = time.perf_counter() - self._begun
        self._latency.observe(self._operation, self._model, self._provider, outcome, seconds)


class ModelLatency:
    """The histogram. A model gets a series of its own once it has answered, or when it is configured."""

    def __init__(self, registry: CollectorRegistry, *, known: Iterable[str]) -> None:
        self._known = set(known)
        self._histogram = Histogram(
            "llm_latency_seconds",
            "Time from asking a model to the end of its answer.",
            ("operation", "provider", "model", "outcome"),
            buckets=_BUCKETS,
            registry=registry,
        )

    def start(self, operation: Operation, model: str, provider: str) -> Timing:
        """Starts the clock of one call."""
        return Timing(self, operation, model, provider)

    def observe(self, operation: Operation, model: str, provider: str, outcome: str, seconds: float) -> None:
        """Counts one call."""
        if outcome == "ok" and len(self._known) < _MOST_NAMES:
            self._known.add(model)
        label = model if model in self._known else "other"
        self._histogram.labels(operation.value, provider, label, outcome).observe(seconds)
