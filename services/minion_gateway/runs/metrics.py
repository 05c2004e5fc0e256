"""What is counted of runs."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from minion_gateway.runs.behaviours import BEHAVIOURS
from minion_gateway.runs.domain import RunState
from minion_gateway.runs.timing import Part

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_ENDINGS = (RunState.COMPLETED, RunState.FAILED, RunState.INPUT_REQUIRED)


class RunMetrics:
    """Runs that ended with where their time went, those driven here, taken over or lost, and those that wait."""

    def __init__(self, registry: CollectorRegistry) -> None:
        executions = Counter(
            "agent_executions",
            "Runs that ended (completed, failed) or wait for a person (input_required).",
            ("behavior_type", "state"),
            registry=registry,
        )
        duration = Histogram(
            "agent_duration_seconds",
            "Time from a run's lease to its end, on the replica that ended it.",
            ("behavior_type",),
            buckets=_BUCKETS,
            registry=registry,
        )
        time = Counter(
            "agent_time_seconds",
            "The time of the runs that ended: waiting for providers, for tools, and the rest, which is ours.",
            ("part",),
            registry=registry,
        )
        # All there are, so that rates are 0 and not absent.
        self._executions = {
            (name, state): executions.labels(name, state.value.lower()) for name in BEHAVIOURS for state in _ENDINGS
        }
        self._duration = {name: duration.labels(name) for name in BEHAVIOURS}
        self._time = {part: time.labels(part.value) for part in Part}
        self.held = Gauge("run_leases_held", "Runs that this replica drives now.", registry=registry)
        self.recoveries = Counter(
            "run_recoveries", "Runs taken over here from a replica that died or was cut off.", registry=registry
        )
        self.lost = Counter(
            "run_leases_lost",
            "Runs that this replica drove until another had taken them over: it was paused for longer than a lease,"
            " or cut off from its database.",
            registry=registry,
        )
        self.waiting = Gauge("runs_waiting", "Runs that no replica drives, of all tenants.", registry=registry)
        self.waiting_oldest = Gauge(
            "runs_waiting_oldest_seconds", "How long the oldest of them has waited.", registry=registry
        )

    def ended(self, behavior_type: str, state: RunState, split: Mapping[Part, float]) -> None:
        """Counts a run, and the seconds that it took by part."""
        self._executions[behavior_type, state].inc()
        self._duration[behavior_type].observe(sum(split.values()))
        for part, seconds in split.items():
            self._time[part].inc(seconds)
