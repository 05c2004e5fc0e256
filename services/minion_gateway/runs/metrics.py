"""What is counted of runs."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from minion_gateway.runs.domain import RunState

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class RunMetrics:
    """`agent_executions_total`, `agent_duration_seconds` and `run_leases_held`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._executions = Counter(
            "agent_executions", "Runs that ended, or wait for a person.", ("behavior_type", "state"), registry=registry
        )
        self._duration = Histogram(
            "agent_duration_seconds",
            "Time from a run's lease to its end, on the replica that ended it.",
            ("behavior_type",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self.held = Gauge("run_leases_held", "Runs that this replica drives now.", registry=registry)

    def ended(self, behavior_type: str, state: RunState, seconds: float) -> None:
        """Counts a run."""
        self._executions.labels(behavior_type, state.value.lower()).inc()
        self._duration.labels(behavior_type).observe(seconds)
