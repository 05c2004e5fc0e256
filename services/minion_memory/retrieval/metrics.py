"""What is counted of searches."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from minion_memory.retrieval.domain import Plan


class RetrievalMetrics(Collector):
    """`memory_searches_total`; plain numbers that are read at a scrape, as those of the RPCs are."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # All there are, so that rates are 0 and not absent.
        self._searches = dict.fromkeys(Plan, 0)
        registry.register(self)

    def searched(self, plan: Plan) -> None:
        """Counts a search."""
        self._searches[plan] += 1

    def collect(self) -> Iterator[Metric]:
        """Gives the metrics as they are now."""
        searches = CounterMetricFamily(
            "memory_searches",
            "Searches by how they were carried out; lexical: the query could not be embedded.",
            labels=("plan",),
        )
        for plan, count in self._searches.items():
            searches.add_metric((plan.value,), count)
        yield searches
