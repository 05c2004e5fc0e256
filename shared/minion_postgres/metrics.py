"""How a pool fares, under OpenTelemetry's names (`db.client.connection.*`).

The numbers are plain ones, written on the event loop alone and read at a scrape, which happens in a thread of its own:
nothing is asked of asyncpg's pool there, whose connections may go while one looks.
"""

from collections.abc import Iterator, Sized

from minion_telemetry.durations import Durations
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from minion_postgres.driver import Connection, PooledConnection

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class PoolMetrics(Collector):
    """The metrics of one pool, which holds `max_size` connections at most."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._open = 0
        # Those that are lent now; the lender's own.
        self.lent: Sized = ()
        self.pending = 0
        self.timeouts = 0
        self.waits = Durations(_SECONDS)

    def opened(self, connection: Connection) -> None:
        """Counts a new connection until it is closed or lost."""
        self._open += 1
        connection.add_termination_listener(self._closed)

    def collect(self) -> Iterator[Metric]:
        """Gives the metrics as they are now."""
        used = len(self.lent)
        count = GaugeMetricFamily(
            "db_client_connections",
            "Open connections to Postgres: used (by a statement or transaction) or idle.",
            labels=("state",),
        )
        count.add_metric(("used",), used)
        count.add_metric(("idle",), max(0, self._open - used))
        yield count
        yield GaugeMetricFamily("db_client_connection_max", "Connections that the pool may hold.", value=self._max_size)
        yield GaugeMetricFamily(
            "db_client_connection_pending_requests", "Who waits for a connection now.", value=self.pending
        )
        yield CounterMetricFamily(
            "db_client_connection_timeouts",
            "Waits for a connection that were given up: the calls failed as UNAVAILABLE.",
            value=self.timeouts,
        )
        yield HistogramMetricFamily(
            "db_client_connection_wait_seconds",
            "Time from asking for a connection to having it; where one is at hand, 0.",
            buckets=self.waits.buckets(),
            sum_value=self.waits.seconds,
        )

    def _closed(self, connection: Connection | PooledConnection) -> None:
        del connection
        self._open -= 1
