"""What is told of the agents that a replica knows."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class AgentMetrics:
    """`agents_feed_up`, `agents_known` and `agents_stale_total`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.feed_up = Gauge(
            "agents_feed_up",
            "1 while the registry's feed is followed; at 0, agents are asked for again every few seconds.",
            registry=registry,
        )
        self.known = Gauge("agents_known", "Agents that this replica keeps resolved.", registry=registry)
        self.stale = Counter(
            "agents_stale",
            "Agents served as they were last seen, since the registry could not be asked.",
            registry=registry,
        )
