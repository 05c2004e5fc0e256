"""What is counted of models: how long they take, their tokens, what they cost.

Names of models come from callers. A label is a name that the operator has configured, or the price list's own name of a
model that has answered; a caller's text is never one, and there is an end of them.

The numbers are plain ones, written on the event loop alone and read at a scrape: see `minion_telemetry.durations`.
"""

import time
from collections.abc import Iterable, Iterator

from minion_telemetry.durations import Durations
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from minion_gateway.inference.domain import NANOS_PER_USD, Model, ModelKind, Operation, Usage
from minion_gateway.inference.prices import Prices

OTHER = "other"
_MOST_NAMES = 100
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_OPERATIONS = {ModelKind.CHAT: Operation.CHAT, ModelKind.EMBEDDING: Operation.EMBEDDINGS}


class ModelNames:
    """Models' names as labels; beyond 100 of them, a model is called `other`."""

    def __init__(self, configured: Iterable[str], prices: Prices) -> None:
        # What is configured has its label, however much that is.
        self._configured = frozenset(configured)
        self._prices = prices
        self._answered: dict[str, str] = {}
        self._labels = set(self._configured)

    def of(self, model: str) -> str:
        """Gives a model's label."""
        return model if model in self._configured else self._answered.get(model, OTHER)

    def answered(self, model: str) -> str:
        """Gives the label of a model that has answered, which the price list may know."""
        label = self.of(model)
        if label == OTHER and len(self._answered) < _MOST_NAMES:
            listed = self._prices.listed_name(model)
            if listed is not None and (listed in self._labels or len(self._labels) < _MOST_NAMES):
                self._labels.add(listed)
                self._answered[model] = label = listed
        return label


class Timing:
    """One call under way."""

    __slots__ = ("_begun", "_metrics", "_model", "_operation", "_provider")

    def __init__(self, metrics: "ModelMetrics", operation: Operation, model: str, provider: str) -> None:
        self._metrics = metrics
        self._operation = operation
        self._model = model
        self._provider = provider
        self._begun = time.perf_counter()

    def end(self, outcome: str) -> None:
        """Counts the call; `outcome` is ok, error or canceled."""
        seconds = time.perf_counter() - self._begun
        self._metrics.ended(self._operation, self._model, self._provider, outcome, seconds)


class _Spent:
    """What a model's answers took."""

    __slots__ = ("cached", "input", "nanos", "output", "reasoning", "unpriced")

    def __init__(self) -> None:
        self.input = self.cached = self.output = self.reasoning = self.nanos = self.unpriced = 0


class ModelMetrics(Collector):
    """`llm_latency_seconds`, `llm_tokens_total`, `llm_cost_usd_total` and `llm_unpriced_calls_total`."""

    def __init__(self, registry: CollectorRegistry, names: ModelNames, models: Iterable[Model]) -> None:
        self._names = names
        self._latency: dict[tuple[str, str, str, str], Durations] = {}
        self._spent: dict[tuple[str, str], _Spent] = {}
        # The series of what is configured exist from the start, so that rates are 0 and not absent.
        for model in models:
            self._spent[model.provider, model.name] = _Spent()
            self._latency[_OPERATIONS[model.kind].value, model.provider, model.name, "ok"] = Durations(_SECONDS)
        registry.register(self)

    def start(self, operation: Operation, model: str, provider: str) -> Timing:
        """Starts the clock of one call."""
        return Timing(self, operation, model, provider)

    def answered(self, model: str, provider: str, usage: Usage, cost_nanos: int | None) -> None:
        """Counts what an answer took; None is a price that isn't known."""
        key = (provider, self._names.answered(model))
        spent = self._spent.get(key)
        if spent is None:
            spent = self._spent[key] = _Spent()
        spent.input += usage.input_tokens
        spent.cached += usage.cached_tokens
        spent.output += usage.output_tokens
        spent.reasoning += usage.reasoning_tokens
        if cost_nanos is None:
            spent.unpriced += 1
        else:
            spent.nanos += cost_nanos

    def ended(self, operation: Operation, model: str, provider: str, outcome: str, seconds: float) -> None:
        """Counts a call, whatever came of it."""
        key = (operation.value, provider, self._names.of(model), outcome)
        durations = self._latency.get(key)
        if durations is None:
            durations = self._latency[key] = Durations(_SECONDS)
        durations.observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """Gives the metrics as they are now."""
        latency = HistogramMetricFamily(
            "llm_latency_seconds",
            "Time from asking a model to the end of its answer; outcome ok, error or canceled.",
            labels=("operation", "provider", "model", "outcome"),
        )
        tokens = CounterMetricFamily(
            "llm_tokens",
            "Tokens of answers; cached_input is a part of input, reasoning of output: add up input and output alone.",
            labels=("provider", "model", "kind"),
        )
        cost = CounterMetricFamily(
            "llm_cost_usd",
            "What answers cost, in US dollars, where the price is known.",
            labels=("provider", "model"),
        )
        unpriced = CounterMetricFamily(
            "llm_unpriced_calls",
            "Answers whose price isn't known; they are in no sum of costs.",
            labels=("provider", "model"),
        )
        # Copied first: the event loop goes on counting while a scrape reads.
        for labels, durations in self._latency.copy().items():
            latency.add_metric(labels, durations.buckets(), durations.seconds)
        for model, spent in self._spent.copy().items():
            for kind, count in (
                ("input", spent.input),
                ("cached_input", spent.cached),
                ("output", spent.output),
                ("reasoning", spent.reasoning),
            ):
                tokens.add_metric((*model, kind), count)
            cost.add_metric(model, spent.nanos / NANOS_PER_USD)
            unpriced.add_metric(model, spent.unpriced)
        yield from (latency, tokens, cost, unpriced)
