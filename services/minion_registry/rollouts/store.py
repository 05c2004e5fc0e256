"""Rows of rollouts."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg
from minion_errors import AlreadyExists
from minion_postgres import Database, Record, Transaction, queries
from pydantic import TypeAdapter

from minion_registry.agents.store import AgentStore
from minion_registry.paging import Place
from minion_registry.rollouts.domain import (
    WHOLE,
    Breach,
    NewRollout,
    Rollout,
    RolloutCheck,
    RolloutEvidence,
    RolloutFilter,
    RolloutGuardrail,
    RolloutGuardrails,
    RolloutStatus,
    RolloutStep,
    not_found,
    running,
)

_QUERIES = queries.load(__package__)
_STEPS = TypeAdapter(tuple[RolloutStep, ...])
_GUARDRAILS = TypeAdapter(RolloutGuardrails)
_CHECK = TypeAdapter(RolloutCheck)


class RolloutStore:
    """Reads and writes rollouts. Each move makes its line in the agent's feed; the agent is locked by then."""

    def __init__(self, database: Database, agents: AgentStore) -> None:
        self._database = database
        self._agents = agents

    async def insert(
        self, transaction: Transaction, tenant_id: UUID, new: NewRollout, baseline_revision: int, principal: str
    ) -> Rollout:
        """Starts a rollout of a locked agent.

        Raises AlreadyExists (ROLLOUT_ID_TAKEN) and FailedPrecondition (ROLLOUT_RUNNING).
        """
        under_way = await transaction.fetch_value(_QUERIES.find_running, tenant_id, new.agent_id)
        if under_way is not None:
            raise running(new.agent_id, under_way)
        try:
            row = await transaction.fetch_one(
                _QUERIES.insert_rollout,
                tenant_id,
                new.rollout_id,
                new.agent_id,
                new.candidate_revision,
                baseline_revision,
                _STEPS.dump_python(new.steps, mode="json"),
                new.steps[0].basis_points,
                _GUARDRAILS.dump_python(new.guardrails, mode="json"),
                new.evidence.value,
                principal,
            )
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name == "rollouts_running":
                # Nobody gets here while writers take the agent's row first; the database doesn't go by that.
                raise running(new.agent_id, None) from error
            raise AlreadyExists(
                "Another rollout has this id.",
                reason="ROLLOUT_ID_TAKEN",
                metadata={"rollout_id": str(new.rollout_id)},
            ) from error
        rollout = _rollout(row)
        await self._agents.set_rollout(transaction, tenant_id, new.agent_id, rollout.rollout_id)
        return rollout

    async def get(self, transaction: Transaction, tenant_id: UUID, rollout_id: UUID) -> Rollout:
        """Raises NotFound (ROLLOUT_NOT_FOUND)."""
        row = await transaction.fetch_one(_QUERIES.get_rollout, tenant_id, rollout_id)
        if row is None:
            raise not_found(rollout_id)
        return _rollout(row)

    async def lock(self, transaction: Transaction, tenant_id: UUID, rollout_id: UUID) -> Rollout:
        """Reads a rollout of a locked agent that nobody else changes until the transaction ends.

        Raises NotFound (ROLLOUT_NOT_FOUND).
        """
        row = await transaction.fetch_one(_QUERIES.lock_rollout, tenant_id, rollout_id)
        if row is None:
            raise not_found(rollout_id)
        return _rollout(row)

    async def move(self, transaction: Transaction, tenant_id: UUID, rollout: Rollout, step_index: int) -> Rollout:
        """Takes a locked rollout to a step."""
        share = rollout.steps[step_index].basis_points
        row = await transaction.fetch_one(_QUERIES.move_rollout, tenant_id, rollout.rollout_id, step_index, share)
        await self._agents.set_rollout(transaction, tenant_id, rollout.agent_id, rollout.rollout_id)
        return _rollout(row)

    async def promote(self, transaction: Transaction, tenant_id: UUID, rollout: Rollout) -> Rollout:
        """Ends a locked rollout and makes its candidate the live revision."""
        row = await transaction.fetch_one(
            _QUERIES.end_rollout, tenant_id, rollout.rollout_id, RolloutStatus.PROMOTED.value, WHOLE, "", None
        )
        await self._agents.make_live(transaction, tenant_id, rollout.agent_id, rollout.candidate_revision)
        await self._agents.set_rollout(transaction, tenant_id, rollout.agent_id, None)
        return _rollout(row)

    async def abort(self, transaction: Transaction, tenant_id: UUID, rollout: Rollout, why: str | Breach) -> Rollout:
        """Ends a locked rollout, because somebody said why or because it broke a limit."""
        reason, guardrail = (why.reason, why.guardrail.value) if isinstance(why, Breach) else (why, None)
        row = await transaction.fetch_one(
            _QUERIES.end_rollout, tenant_id, rollout.rollout_id, RolloutStatus.ABORTED.value, 0, reason, guardrail
        )
        await self._agents.set_rollout(transaction, tenant_id, rollout.agent_id, None)
        return _rollout(row)

    async def record_check(
        self, transaction: Transaction, tenant_id: UUID, rollout_id: UUID, check: RolloutCheck, after: timedelta
    ) -> None:
        """Keeps what a rollout was judged by and has it looked at again after a time; one that ended is left alone."""
        await transaction.execute(
            _QUERIES.record_check, tenant_id, rollout_id, _CHECK.dump_python(check, mode="json"), after
        )

    async def claim(self, limit: int, hold: timedelta) -> Sequence[tuple[UUID, UUID]]:
        """Takes rollouts of all tenants that are due, as tenant and id, and keeps other replicas off them."""
        rows = await self._database.fetch(_QUERIES.claim_rollouts, limit, hold)
        return [(row["tenant_id"], row["rollout_id"]) for row in rows]

    async def page(
        self, transaction: Transaction, tenant_id: UUID, selected: RolloutFilter, before: Place, limit: int
    ) -> Sequence[Rollout]:
        """Returns at most `limit` rollouts before a place, newest first."""
        where = (tenant_id, *before, limit)
        status = selected.status.value if selected.status else None
        if selected.agent_id is not None:
            rows = await transaction.fetch(_QUERIES.list_rollouts_by_agent, *where, selected.agent_id, status)
        elif status is not None:
            rows = await transaction.fetch(_QUERIES.list_rollouts_by_status, *where, status)
        else:
            rows = await transaction.fetch(_QUERIES.list_rollouts, *where)
        return [_rollout(row) for row in rows]


def _rollout(row: Record | None) -> Rollout:
    assert row is not None
    guardrail, check = row["breached_guardrail"], row["last_check"]
    return Rollout(
        rollout_id=row["rollout_id"],
        agent_id=row["agent_id"],
        candidate_revision=row["candidate_revision"],
        baseline_revision=row["baseline_revision"],
        steps=_STEPS.validate_python(row["steps"]),
        step_index=row["step_index"],
        basis_points=row["basis_points"],
        guardrails=_GUARDRAILS.validate_python(row["guardrails"]),
        evidence=RolloutEvidence(row["evidence"]),
        status=RolloutStatus(row["status"]),
        abort_reason=row["abort_reason"],
        breached_guardrail=None if guardrail is None else RolloutGuardrail(guardrail),
        last_check=None if check is None else _CHECK.validate_python(check),
        principal=row["principal"],
        version=row["version"],
        create_time=row["create_time"],
        update_time=row["updated_at"],
        step_start_time=row["step_start_time"],
        end_time=row["end_time"],
    )
