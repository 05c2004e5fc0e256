"""Watches running rollouts: aborts what breaks its limits, and begins steps whose time has come."""

import asyncio
import random
from datetime import timedelta
from uuid import UUID

import structlog
from minion_auth import CallerKind, Identity, acting_as
from minion_errors import MinionError, NotFound
from prometheus_client import CollectorRegistry, Counter

from minion_registry.rollouts.domain import Checked, Mover
from minion_registry.rollouts.service import Rollouts
from minion_registry.rollouts.store import RolloutStore

_ROLLOUTS_A_LOOK = 100
_AT_ONCE = 4
# How long rollouts stay with a replica that took them and died: longer than a check with its call may take.
_HOLD = timedelta(seconds=15)
# Two looks for what is due are at most so far apart, however seldom each rollout is checked.
_LONGEST_PAUSE = 1.0
_log = structlog.get_logger()


class RolloutWatcher:
    """Checks every running rollout about every `seconds`, on whichever replica comes first."""

    def __init__(self, rollouts: Rollouts, store: RolloutStore, metrics: CollectorRegistry, *, seconds: float) -> None:
        self._rollouts = rollouts
        self._store = store
        self._every = timedelta(seconds=seconds)
        self._pause = min(seconds / 2, _LONGEST_PAUSE)
        self._checks = Counter(
            "rollout_checks",
            "Looks at running rollouts: kept as they are, moved by the schedule, aborted by a guardrail or because they"
            " could not be judged for too long, or failed.",
            ("outcome",),
            registry=metrics,
        )
        # All there are, so that rates are 0 and not absent.
        for outcome in ("kept", *(mover.value for mover in Mover if mover is not Mover.CALLER), "failed"):
            self._checks.labels(outcome)

    async def run(self) -> None:
        """Checks, for ever."""
        while True:
            taken = 0
            try:
                taken = await self.look()
            except MinionError as fault:
                _log.warning("rollouts can't be looked for", reason=fault.reason, error=fault.message)
            if taken < _ROLLOUTS_A_LOOK:
                # Replicas in step would leave all the work to the one that is a moment ahead.
                await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret

    async def look(self) -> int:
        """Checks what is due, of every tenant; returns how many rollouts that were."""
        turns = await asyncio.gather(*(self._take_turns() for _ in range(_AT_ONCE)), return_exceptions=True)
        taken = 0
        for turn in turns:
            if isinstance(turn, BaseException):
                raise turn
            taken += turn
        return taken

    async def _take_turns(self) -> int:
        taken = 0
        # One at a time: each is held for its own check alone, and one that takes long keeps no other waiting.
        while taken < _ROLLOUTS_A_LOOK // _AT_ONCE:
            claimed = await self._store.claim(1, max(self._every, _HOLD))
            for tenant_id, rollout_id in claimed:
                await self._check(tenant_id, rollout_id)
                taken += 1
            if not claimed:
                break
        return taken

    async def _check(self, tenant_id: UUID, rollout_id: UUID) -> None:
        identity = Identity(
            kind=CallerKind.SERVICE, tenant_id=tenant_id, principal="service:registry", service="registry"
        )
        try:
            with acting_as(identity):
                checked = await self._rollouts.check(rollout_id, self._every)
        except NotFound:
            # It went with its agent.
            return
        except MinionError as fault:
            # Its turn comes again when the hold is over.
            _log.warning("a rollout can't be checked", rollout_id=str(rollout_id), reason=fault.reason)
            self._checks.labels("failed").inc()
            return
        except Exception:  # noqa: BLE001 - the one handler around a check: whatever one stumbles over, others go on
            _log.exception("a rollout can't be checked", rollout_id=str(rollout_id))
            self._checks.labels("failed").inc()
            return
        self._tell(checked, rollout_id=str(rollout_id), tenant_id=str(tenant_id))

    def _tell(self, checked: Checked, **named: str) -> None:
        check, moved_by = checked.check, checked.moved_by
        if check is not None and check.fault_reason:
            self._checks.labels("failed").inc()
            if check.is_first_blind:
                # Once an outage, not once a look.
                _log.warning("a rollout can't be judged: there are no figures", reason=check.fault_reason, **named)
        if checked.sees_again:
            _log.info("a rollout can be judged again", **named)
        if moved_by is not None:
            self._checks.labels(moved_by.value).inc()
            _log.info("a rollout moved", by=moved_by.value, **named)
        elif check is None or not check.fault_reason:
            self._checks.labels("kept").inc()
