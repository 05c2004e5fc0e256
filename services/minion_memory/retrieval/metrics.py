"""What is counted of searches."""

from prometheus_client import CollectorRegistry, Counter

from minion_memory.retrieval.domain import Plan


class RetrievalMetrics:
    """`memory_searches_total`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        searches = Counter(
            "memory_searches",
            "Searches by how they were carried out; lexical: the query could not be embedded.",
            ("plan",),
            registry=registry,
        )
        # All there are, so that rates are 0 and not absent.
        self._searches = {plan: searches.labels(plan.value) for plan in Plan}

    def searched(self, plan: Plan) -> None:
        """Counts a search."""
        self._searches[plan].inc()
