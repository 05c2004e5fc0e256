"""Keeps leases: looks for runs that nobody drives, and renews those that are driven here."""

import asyncio
import random
from uuid import UUID

import structlog
from minion_errors import MinionError

from minion_gateway.runs.driver import Driver
from minion_gateway.runs.events import UNCERTAIN
from minion_gateway.runs.metrics import RunMetrics
from minion_gateway.runs.store import RunStore

_RUNS_A_LOOK = 32
_LONGEST_PAUSE = 0.5
_MEASURE_SECONDS = 5.0
_log = structlog.get_logger()


class LeaseKeeper:
    """The loops of a replica. The database's clock alone says whose a run is; `lease_seconds` is how long."""

    def __init__(self, store: RunStore, driver: Driver, metrics: RunMetrics, *, lease_seconds: float) -> None:
        self._store = store
        self._driver = driver
        self._metrics = metrics
        self._lease_seconds = lease_seconds

    async def pick(self) -> None:
        """Looks for runs whose lease ran out, for ever, and drives them."""
        loop = asyncio.get_running_loop()
        pause = min(self._lease_seconds / 8, _LONGEST_PAUSE)
        while True:
            room = min(_RUNS_A_LOOK, self._driver.room)
            if room:
                try:
                    began_at = loop.time()
                    for tenant_id, run_id in await self._store.lease(room):
                        await self._take(tenant_id, run_id, began_at)
                except MinionError as fault:
                    _log.warning("no runs could be leased", reason=fault.reason, error=fault.message)
            # Replicas in step would leave all the work to the one that is a moment ahead.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret

    async def _take(self, tenant_id: UUID, run_id: UUID, began_at: float) -> None:
        """Drives a run. One that can't be read, as of a later release, is left to its lease, and holds up no other."""
        try:
            await self._driver.take(tenant_id, run_id, began_at=began_at)
        except UNCERTAIN:
            # So it will be with all others.
            raise
        except Exception:  # noqa: BLE001 - whatever is wrong with one run, its tenant's or ours
            _log.exception("a run could not be taken over", tenant_id=str(tenant_id), run_id=str(run_id))

    async def renew(self) -> None:
        """Renews leases at thirds of their time, for ever; one statement for all."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            due = self._driver.overdue()
            if not due:
                continue
            began_at = loop.time()
            try:
                held = await self._store.renew([driven.turn.run for driven in due])
            except MinionError as fault:
                _log.warning("leases could not be renewed", count=len(due), reason=fault.reason, error=fault.message)
                continue
            for driven in due:
                if driven.turn.run.run_id in held:
                    driven.turn.fresh_until = began_at + self._lease_seconds
                else:
                    driven.lose()

    async def measure(self) -> None:
        """Counts the runs that wait for a replica, for ever; every replica tells the same."""
        pause = min(self._lease_seconds, _MEASURE_SECONDS)
        while True:
            try:
                found = await self._store.waiting()
                self._metrics.waiting.set(found.count)
                self._metrics.waiting_oldest.set(found.oldest_seconds)
            except MinionError as fault:
                _log.warning("waiting runs can't be counted", reason=fault.reason, error=fault.message)
            await asyncio.sleep(pause)
