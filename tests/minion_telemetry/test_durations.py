from minion_telemetry.durations import Durations
from prometheus_client import CollectorRegistry, Histogram

BOUNDS = (0.1, 0.5, 2.5)


def test_what_is_counted_is_what_prometheus_own_histogram_would_say() -> None:
    ours, registry = Durations(BOUNDS), CollectorRegistry()
    theirs = Histogram("it_seconds", "It.", buckets=BOUNDS, registry=registry)
    for seconds in (0.0, 0.05, 0.1, 0.100001, 0.5, 2.5, 3.0, 1e9):
        ours.observe(seconds)
        theirs.observe(seconds)
    ours.observe_none()
    theirs.observe(0)
    assert ours.buckets() == [
        (bound, registry.get_sample_value("it_seconds_bucket", {"le": bound}))
        for bound in ("0.1", "0.5", "2.5", "+Inf")
    ]
    assert ours.seconds == registry.get_sample_value("it_seconds_sum")


def test_nothing_is_counted_at_first() -> None:
    assert Durations(BOUNDS).buckets() == [("0.1", 0), ("0.5", 0), ("2.5", 0), ("+Inf", 0)]
