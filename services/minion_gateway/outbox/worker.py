"""The relay: audit rows to the activity service, until it has acknowledged them. Never in a turn's way."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import structlog
from minion_auth import CallerKind, Identity, acting_as
from minion_errors import InvalidArgument, MinionError
from prometheus_client import CollectorRegistry, Gauge

from minion_gateway.outbox.domain import Waiting
from minion_gateway.outbox.peer import ActivityPeer
from minion_gateway.outbox.store import OutboxStore
from minion_gateway.runs.points import point

_ROWS_A_LOOK = 500
_ROWS_A_CALL = 100
_HOLD = timedelta(seconds=30)
_PAUSE_AFTER_FAULT = timedelta(seconds=1)
# A row that the activity service refuses for what it is stays: an audit is not thrown away. It is tried now and then.
_PAUSE_AFTER_REFUSAL = timedelta(minutes=10)
_LAG_SECONDS = 10.0
_log = structlog.get_logger()


class Relay:
    """Sends what waits, oldest first. Rows are sent again until acknowledged, and stored once by their ids."""

    def __init__(
        self, store: OutboxStore, activity: ActivityPeer, registry: CollectorRegistry, *, poll_seconds: float
    ) -> None:
        self._store = store
        self._activity = activity
        self._poll_seconds = poll_seconds
        self._lag = Gauge("outbox_lag_seconds", "Age of the oldest audit row that waits.", registry=registry)
        self._waiting = Gauge("outbox_waiting", "Audit rows that wait.", registry=registry)

    async def run(self) -> None:
        """Sends, for ever."""
        clock = asyncio.get_running_loop().time
        measured = clock()
        while True:
            try:
                sent = await self.send()
                if clock() > measured + _LAG_SECONDS:
                    measured = clock()
                    lag = await self._store.lag()
                    self._lag.set(lag.seconds)
                    self._waiting.set(lag.waiting)
            except MinionError as fault:
                _log.warning("the outbox can't be read", reason=fault.reason, error=fault.message)
                sent = 0
            if sent < _ROWS_A_LOOK:
                await asyncio.sleep(self._poll_seconds)

    async def send(self) -> int:
        """Sends what is due, of every tenant; returns how many rows were looked at."""
        claimed = await self._store.claim(_ROWS_A_LOOK, _HOLD)
        for tenant_id, ids in claimed.items():
            by_principal: dict[str, list[Waiting]] = defaultdict(list)
            for waiting in await self._store.read(tenant_id, ids):
                by_principal[waiting.principal].append(waiting)
            for principal, rows in by_principal.items():
                for start in range(0, len(rows), _ROWS_A_CALL):
                    await self._deliver(tenant_id, principal, rows[start : start + _ROWS_A_CALL])
        return sum(len(ids) for ids in claimed.values())

    async def _deliver(self, tenant_id: UUID, principal: str, rows: Sequence[Waiting]) -> None:
        ids = [row.activity.activity_id for row in rows]
        identity = Identity(
            kind=CallerKind.SERVICE,
            tenant_id=tenant_id,
            principal="service:gateway",
            on_behalf_of=principal,
            service="gateway",
        )
        try:
            point("outbox.before")
            with acting_as(identity):
                await self._activity.record([row.activity for row in rows])
            point("outbox.sent")
        except InvalidArgument as fault:
            if len(rows) > 1:
                # One row is at fault; the others shall not wait for it.
                for row in rows:
                    await self._deliver(tenant_id, principal, [row])
                return
            _log.error("an audit row is refused", activity_id=str(ids[0]), error=fault.message)
            await self._store.defer(tenant_id, ids, _PAUSE_AFTER_REFUSAL, refused=True)
            return
        except MinionError as fault:
            _log.warning("audit rows wait", count=len(rows), reason=fault.reason, error=fault.message)
            await self._store.defer(tenant_id, ids, _PAUSE_AFTER_FAULT, refused=False)
            return
        await self._store.delete(tenant_id, ids)
        point("outbox.deleted")
