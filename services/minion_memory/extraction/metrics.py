"""What is counted of extraction."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class ExtractionMetrics:
    """Jobs by how they ended, what waits, and how long."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ended = Counter(
            "extraction_jobs",
            "Tries of jobs that ended here, by extractor and how.",
            ("extractor", "outcome"),
            registry=registry,
        )
        self.refused = Counter(
            "extraction_refused", "Proposals of models that were refused.", ("extractor",), registry=registry
        )
        self.waiting = Gauge("extraction_jobs_waiting", "Jobs that wait, of all tenants.", registry=registry)
        self.failed = Gauge("extraction_jobs_failed", "Jobs that were given up, of all tenants.", registry=registry)
        self.lag = Gauge("extraction_lag_seconds", "How long the oldest job that is due has waited.", registry=registry)
        self.following = Gauge(
            "extraction_following", "1 on the replica that reads the session service's feed.", registry=registry
        )
