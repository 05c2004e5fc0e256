"""What is counted of extraction."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from minion_memory.extraction.extractors import names

_OUTCOMES = ("done", "tried", "failed")


class ExtractionMetrics:
    """Jobs by how they ended, what waits, and how long. An extractor that isn't one of ours is called `other`.

    A replica that is not to follow sessions says nothing of the feed: 0 there would be taken for an outage.
    """

    def __init__(self, registry: CollectorRegistry, *, follows: bool = True) -> None:
        self._ended = Counter(
            "extraction_jobs",
            "Tries of jobs that ended here: done, tried (it comes again), failed.",
            ("extractor", "outcome"),
            registry=registry,
        )
        self._refused = Counter(
            "extraction_refused", "Proposals of models that were refused.", ("extractor",), registry=registry
        )
        # All there are, so that rates are 0 and not absent.
        for extractor in names():
            self._refused.labels(extractor)
            for outcome in _OUTCOMES:
                self._ended.labels(extractor, outcome)
        self.waiting = Gauge("extraction_jobs_waiting", "Jobs that wait, of all tenants.", registry=registry)
        self.failed = Gauge("extraction_jobs_failed", "Jobs that were given up, of all tenants.", registry=registry)
        self.lag = Gauge("extraction_lag_seconds", "How long the oldest job that is due has waited.", registry=registry)
        self.following = Gauge(
            "extraction_following",
            "1 on the replica that reads the session service's feed; none where sessions are not followed.",
            registry=registry if follows else None,
        )

    def ended(self, extractor: str, outcome: str) -> None:
        """Counts a try of a job: done, tried (it comes again) or failed."""
        self._ended.labels(_label(extractor), outcome).inc()

    def refused(self, extractor: str, count: int) -> None:
        """Counts proposals that were refused."""
        self._refused.labels(_label(extractor)).inc(count)


def _label(extractor: str) -> str:
    # An agent's policy may name anything; what is no extractor fails, and must not become a series.
    return extractor if extractor in names() else "other"
