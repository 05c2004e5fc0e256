"""What is done with rollouts."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from minion_auth import caller, tenant
from minion_errors import MinionError
from minion_postgres import Database, Idempotent, Key, Transaction, pages

from minion_registry import paging
from minion_registry.agents.store import AgentStore
from minion_registry.audit.domain import Entry
from minion_registry.audit.store import AuditStore
from minion_registry.rollouts.domain import (
    Checked,
    Move,
    Mover,
    NewRollout,
    Rollout,
    RolloutCheck,
    RolloutEvidence,
    RolloutFilter,
    RolloutStatus,
    asked_for,
    pause_after,
    told,
)
from minion_registry.rollouts.peer import ActivityPeer
from minion_registry.rollouts.store import RolloutStore

_KEPT = Idempotent(Rollout, schema="registry")


class Rollouts:
    """Brings candidates live with care. Every move takes the agent's row first, then the rollout's."""

    def __init__(
        self, database: Database, store: RolloutStore, agents: AgentStore, audit: AuditStore, activity: ActivityPeer
    ) -> None:
        self._database = database
        self._store = store
        self._agents = agents
        self._audit = audit
        self._activity = activity

    async def start(self, new: NewRollout, key: Key | None) -> Rollout:
        """Starts a rollout with its first step.

        Raises NotFound (AGENT_NOT_FOUND), AlreadyExists (ROLLOUT_ID_TAKEN) and FailedPrecondition
        (AGENT_STATUS_UNSUITABLE, ROLLOUT_RUNNING, ROLLOUT_CANDIDATE_LIVE, ROLLOUT_GUARDRAIL_UNAVAILABLE).
        """
        tenant_id = tenant()
        new.guardrails.check_available()

        async def write(transaction: Transaction) -> Rollout:
            agent = await self._agents.lock(transaction, tenant_id, new.agent_id)
            new.check_startable(agent)
            await self._agents.get_revision(transaction, tenant_id, new.agent_id, new.candidate_revision)
            rollout = await self._store.insert(transaction, tenant_id, new, agent.revision, caller().origin)
            await self._tell(transaction, tenant_id, "rollout.start", rollout, Mover.CALLER, asked_for(rollout))
            return rollout

        async with self._database.transaction(tenant_id) as transaction:
            return await _KEPT.once(transaction, key, lambda: write(transaction))

    async def get(self, rollout_id: UUID) -> Rollout:
        """Returns a rollout. Raises NotFound (ROLLOUT_NOT_FOUND)."""
        tenant_id = tenant()
        async with self._database.transaction(tenant_id) as transaction:
            return await self._store.get(transaction, tenant_id, rollout_id)

    async def page(self, selected: RolloutFilter, size: int, token: str) -> tuple[Sequence[Rollout], str]:
        """Returns a page of rollouts, newest first, and the token of the next one, empty after the last.

        Raises InvalidArgument (PAGE_TOKEN_INVALID).
        """
        tenant_id = tenant()
        filters = {
            "list": "rollouts",
            "agent_id": None if selected.agent_id is None else str(selected.agent_id),
            "status": selected.status.value if selected.status else None,
        }
        before = paging.place(token, filters)
        async with self._database.transaction(tenant_id) as transaction:
            found = await self._store.page(transaction, tenant_id, selected, before, size + 1)
        shown = found[:size]
        if len(found) == len(shown):
            return shown, ""
        return shown, pages.encode((shown[-1].create_time, shown[-1].rollout_id), filters)

    async def advance(self, rollout_id: UUID, step_index: int | None, etag: str, key: Key | None) -> Rollout:
        """Moves a rollout to a later step; None means the next one.

        Raises NotFound (ROLLOUT_NOT_FOUND), Aborted (ETAG_MISMATCH), FailedPrecondition (ROLLOUT_ENDED) and
        InvalidArgument (INVALID_FIELDS).
        """

        async def work(transaction: Transaction, tenant_id: UUID, rollout: Rollout) -> Rollout:
            step = rollout.later_step(step_index)
            moved = await self._store.move(transaction, tenant_id, rollout, step)
            await self._tell(transaction, tenant_id, "rollout.advance", moved, Mover.CALLER)
            return moved

        return await self._changed(rollout_id, etag, key, work)

    async def promote(self, rollout_id: UUID, etag: str, key: Key | None) -> Rollout:
        """Makes the candidate the live revision.

        Raises NotFound (ROLLOUT_NOT_FOUND), Aborted (ETAG_MISMATCH) and FailedPrecondition (ROLLOUT_ENDED,
        ROLLOUT_EVIDENCE_MISSING).
        """
        tenant_id = tenant()
        async with self._database.transaction(tenant_id) as transaction:
            # A repeat gets its first answer, even after the rollout went with its agent.
            first = await _KEPT.recall(transaction, key)
            if first is not None:
                return first
            rollout = await self._store.get(transaction, tenant_id, rollout_id)
        evidence: Mapping[str, Any] = asked_for(rollout)
        # Asked outside of any transaction; a revision never changes, so the answer stays true until it is used. One
        # that has ended is asked for nothing: it is told so below.
        if rollout.status is RolloutStatus.RUNNING and rollout.evidence is RolloutEvidence.EVALUATION:
            rollout.check_etag(etag)
            gate = await self._activity.check_gate(rollout.agent_id, rollout.candidate_revision)
            gate.check_passed(rollout)
            evidence = {**evidence, "evaluation_id": gate.evaluation_id}

        async def work(transaction: Transaction, tenant_id: UUID, rollout: Rollout) -> Rollout:
            promoted = await self._store.promote(transaction, tenant_id, rollout)
            await self._tell(transaction, tenant_id, "rollout.promote", promoted, Mover.CALLER, evidence)
            return promoted

        return await self._changed(rollout_id, etag, key, work)

    async def abort(self, rollout_id: UUID, reason: str, etag: str, key: Key | None) -> Rollout:
        """Gives all sessions back to the live revision.

        Raises NotFound (ROLLOUT_NOT_FOUND), Aborted (ETAG_MISMATCH) and FailedPrecondition (ROLLOUT_ENDED).
        """

        async def work(transaction: Transaction, tenant_id: UUID, rollout: Rollout) -> Rollout:
            aborted = await self._store.abort(transaction, tenant_id, rollout, reason)
            await self._tell(transaction, tenant_id, "rollout.abort", aborted, Mover.CALLER)
            return aborted

        return await self._changed(rollout_id, etag, key, work)

    async def check(self, rollout_id: UUID, every: timedelta) -> Checked:
        """Looks at a running rollout's figures and does what they ask for; has it looked at again after about `every`.

        Raises NotFound (ROLLOUT_NOT_FOUND) when it is gone.
        """
        tenant_id = tenant()
        rollout = await self.get(rollout_id)
        if rollout.status is not RolloutStatus.RUNNING:
            return Checked()
        began = asyncio.get_running_loop().time()
        check = await self._figures(rollout)
        after = pause_after(timedelta(seconds=asyncio.get_running_loop().time() - began), every)
        sees_again = not check.fault_reason and rollout.last_check is not None and bool(rollout.last_check.fault_reason)
        async with self._database.transaction(tenant_id) as transaction:
            if rollout.judge(check, check.check_time) == Move():
                await self._store.record_check(transaction, tenant_id, rollout_id, check, after)
                return Checked(check, sees_again=sees_again)
            await self._agents.lock(transaction, tenant_id, rollout.agent_id)
            # Somebody may have moved it while we asked.
            rollout = await self._store.lock(transaction, tenant_id, rollout_id)
            if rollout.status is not RolloutStatus.RUNNING:
                return Checked()
            await self._store.record_check(transaction, tenant_id, rollout_id, check, after)
            moved_by = await self._obey(transaction, tenant_id, rollout, rollout.judge(check, check.check_time))
            return Checked(check, moved_by, sees_again)

    async def _figures(self, rollout: Rollout) -> RolloutCheck:
        revisions = (rollout.candidate_revision, rollout.baseline_revision)
        try:
            candidate, baseline = await self._activity.figures(rollout.agent_id, rollout.create_time, revisions)
        except MinionError as fault:
            return RolloutCheck.blind(datetime.now(UTC), fault.reason, rollout.last_check)
        return RolloutCheck(datetime.now(UTC), candidate, baseline)

    async def _obey(self, transaction: Transaction, tenant_id: UUID, rollout: Rollout, move: Move) -> Mover | None:
        if move.breach is not None:
            aborted = await self._store.abort(transaction, tenant_id, rollout, move.breach)
            await self._tell(transaction, tenant_id, "rollout.abort", aborted, Mover.GUARDRAIL)
            return Mover.GUARDRAIL
        if move.given_up:
            aborted = await self._store.abort(transaction, tenant_id, rollout, move.given_up)
            await self._tell(transaction, tenant_id, "rollout.abort", aborted, Mover.BLIND)
            return Mover.BLIND
        if move.step_index is not None:
            moved = await self._store.move(transaction, tenant_id, rollout, move.step_index)
            await self._tell(transaction, tenant_id, "rollout.advance", moved, Mover.SCHEDULE)
            return Mover.SCHEDULE
        return None

    async def _changed(
        self,
        rollout_id: UUID,
        etag: str,
        key: Key | None,
        work: Callable[[Transaction, UUID, Rollout], Awaitable[Rollout]],
    ) -> Rollout:
        tenant_id = tenant()

        async def write(transaction: Transaction) -> Rollout:
            found = await self._store.get(transaction, tenant_id, rollout_id)
            await self._agents.lock(transaction, tenant_id, found.agent_id)
            rollout = await self._store.lock(transaction, tenant_id, rollout_id)
            rollout.check_etag(etag)
            rollout.check_running()
            return await work(transaction, tenant_id, rollout)

        async with self._database.transaction(tenant_id) as transaction:
            return await _KEPT.once(transaction, key, lambda: write(transaction))

    async def _tell(
        self,
        transaction: Transaction,
        tenant_id: UUID,
        name: str,
        rollout: Rollout,
        by: Mover,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        details = {**told(rollout, by), **(more or {})}
        entry = Entry(name, details, agent_id=rollout.agent_id, agent_revision=rollout.candidate_revision)
        await self._audit.record(transaction, tenant_id, entry)
