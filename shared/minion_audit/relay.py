"""The relay: audit rows to the activity service, until it has acknowledged them. Never in anybody's way."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from uuid import UUID

import structlog
from minion_auth import CallerKind, Identity, acting_as
from minion_errors import Aborted, DeadlineExceeded, MinionError, ResourceExhausted, Unavailable, Unimplemented
from minion_telemetry import Telemetry
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
from prometheus_client import Gauge

from minion_audit.domain import Waiting
from minion_audit.peer import ActivityPeer, content_bytes
from minion_audit.store import OutboxStore

_ROWS_A_LOOK = 500
_ROWS_A_CALL = 100
# Of their contents as JSON, which take six times as much on the wire at most: a message has room for 4 MiB.
_BYTES_A_CALL = 512 * 1024
# A replica that can't send gives its rows back at once and rests itself: another one may reach the activity service.
_GIVEN_BACK = timedelta(0)
_FIRST_REST_SECONDS = 0.5
_LONGEST_REST_SECONDS = 10.0
# A row that can't be read, or that the activity service refuses or fails on for what it is, stays: an audit is not
# thrown away. It is tried now and then.
_PAUSE_AFTER_REFUSAL = timedelta(minutes=10)
_LAG_SECONDS = 10.0
_log = structlog.get_logger()


class Relay:
    """Sends what waits, oldest first. Rows are sent again until acknowledged, and stored once by their ids.

    `service` is who sends, `claim_seconds` how long rows stay with a replica that claimed them and died. The fault
    suites are told by `point` where the relay has come to.
    """

    def __init__(
        self,
        store: OutboxStore,
        activity: ActivityPeer,
        telemetry: Telemetry,
        *,
        service: str,
        poll_seconds: float,
        claim_seconds: float,
        point: Callable[[str], None] | None = None,
    ) -> None:
        self._service = service
        self._point = point or _unobserved
        self._store = store
        self._activity = activity
        self._poll_seconds = poll_seconds
        self._claim = timedelta(seconds=claim_seconds)
        self._telemetry = telemetry
        self._lag = Gauge(
            "outbox_lag_seconds",
            "Age of the oldest audit row that waits for the activity service.",
            registry=telemetry.registry,
        )
        self._waiting = Gauge(
            "outbox_waiting", "Audit rows that wait for the activity service.", registry=telemetry.registry
        )

    async def run(self) -> None:
        """Sends, for ever."""
        clock = asyncio.get_running_loop().time
        measured, rest = clock(), _FIRST_REST_SECONDS
        while True:
            looked_at = 0
            try:
                looked_at, delivered = await self.send()
                if clock() > measured + _LAG_SECONDS:
                    measured = clock()
                    lag = await self._store.lag()
                    self._lag.set(lag.seconds)
                    self._waiting.set(lag.waiting)
            except MinionError as fault:
                _log.warning("the outbox can't be read", reason=fault.reason, error=fault.message)
                delivered = False
            if not delivered:
                await asyncio.sleep(rest)
                rest = min(rest * 2, _LONGEST_REST_SECONDS)
                continue
            rest = _FIRST_REST_SECONDS
            if looked_at < _ROWS_A_LOOK:
                # Replicas in step would leave all the work to the one that is a moment ahead.
                await asyncio.sleep(self._poll_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret

    async def send(self) -> tuple[int, bool]:
        """Sends what is due, of every tenant; returns how many rows it looked at, and whether the service answered."""
        claimed = await self._store.claim(_ROWS_A_LOOK, self._claim)
        answered = True
        for tenant_id, ids in claimed.items():
            put_off: set[UUID] = set()
            if answered:
                answered = await self._send_of(tenant_id, ids, put_off)
            if not answered:
                left = [activity_id for activity_id in ids if activity_id not in put_off]
                await self._store.defer(tenant_id, left, _GIVEN_BACK, refused=False)
        return sum(len(ids) for ids in claimed.values()), answered

    async def _send_of(self, tenant_id: UUID, ids: Sequence[UUID], put_off: set[UUID]) -> bool:
        """Sends a tenant's rows; False when the service did not answer. `put_off` gets those that are to wait."""
        for start in range(0, len(ids), _ROWS_A_CALL):
            # No more at once than a call has: five hundred rows can hold 32 MiB.
            waiting, unreadable = await self._store.read(tenant_id, ids[start : start + _ROWS_A_CALL])
            for row in unreadable:
                await self._put_off(tenant_id, row.activity_id, "UNREADABLE", row.error, put_off)
            by_principal: dict[str, list[Waiting]] = defaultdict(list)
            for each in waiting:
                by_principal[each.principal].append(each)
            for principal, rows in by_principal.items():
                for part in _parts(rows):
                    if not await self._deliver(tenant_id, principal, part, put_off):
                        return False
        return True

    async def _deliver(self, tenant_id: UUID, principal: str, rows: Sequence[Waiting], put_off: set[UUID]) -> bool:
        """Sends rows and deletes them; False when the service did not answer."""
        ids = [row.activity.activity_id for row in rows]
        identity = Identity(
            kind=CallerKind.SERVICE,
            tenant_id=tenant_id,
            principal=f"service:{self._service}",
            on_behalf_of=principal,
            service=self._service,
        )
        try:
            self._point("outbox.before")
            with acting_as(identity), self._span(rows):
                await self._activity.record([row.activity for row in rows])
            self._point("outbox.sent")
        except (MinionError, ValueError, OverflowError) as fault:
            # The latter two where a row can't even be written as a message.
            if isinstance(fault, MinionError) and not _may_be_of_one(fault, rows):
                _log.warning("audit rows wait", count=len(rows), reason=fault.reason, error=fault.message)
                return False
            if len(rows) == 1:
                reason, error = "UNWRITABLE", type(fault).__name__
                if isinstance(fault, MinionError):
                    reason, error = fault.reason, fault.message
                await self._put_off(tenant_id, ids[0], reason, error, put_off)
                return True
            # One row is at fault, or all are too large together for one message: the others shall not wait for it.
            middle = len(rows) // 2
            for part in (rows[:middle], rows[middle:]):
                if not await self._deliver(tenant_id, principal, part, put_off):
                    return False
            return True
        await self._store.delete(tenant_id, ids)
        self._point("outbox.deleted")
        return True

    async def _put_off(self, tenant_id: UUID, activity_id: UUID, reason: str, error: str, put_off: set[UUID]) -> None:
        _log.error("an audit row is refused", activity_id=str(activity_id), reason=reason, error=error)
        await self._store.defer(tenant_id, [activity_id], _PAUSE_AFTER_REFUSAL, refused=True)
        put_off.add(activity_id)

    def _span(self, rows: Sequence[Waiting]) -> AbstractContextManager[object]:
        """Begins the span of one delivery: in the trace of the first row's call, with links to the others'."""
        calls = dict.fromkeys((row.activity.trace_id, row.activity.span_id) for row in rows)
        origins = [
            SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
            for trace_id, span_id in calls
            if trace_id and span_id
        ]
        parent = set_span_in_context(NonRecordingSpan(origins[0]), Context()) if origins else Context()
        links = [Link(origin) for origin in origins[1:]]
        return self._telemetry.span("relay audit", kind=SpanKind.PRODUCER, context=parent, links=links)


def _parts(rows: Sequence[Waiting]) -> Iterator[Sequence[Waiting]]:
    """Parts rows into what one message holds."""
    part: list[Waiting] = []
    filled = 0
    for row in rows:
        size = content_bytes([row.activity])
        if part and filled + size > _BYTES_A_CALL:
            yield part
            part, filled = [], 0
        part.append(row)
        filled += size
    if part:
        yield part


def _may_be_of_one(fault: MinionError, rows: Sequence[Waiting]) -> bool:
    """Tells whether a fault may come of one of the rows, rather than of a service that is away or has no room."""
    if isinstance(fault, Unavailable):
        # So a service answers that failed inside; one that is down says otherwise.
        return fault.metadata.get("cause") in ("INTERNAL", "UNKNOWN")
    if isinstance(fault, ResourceExhausted):
        # Too large together for one message, where nothing says when to come again; a row alone always fits.
        return fault.retry_after is None and len(rows) > 1
    return not isinstance(fault, (Aborted, DeadlineExceeded, Unimplemented))


def _unobserved(place: str) -> None:
    """Nobody looks, outside of fault suites."""
    del place
