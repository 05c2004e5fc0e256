"""Summary jobs in Postgres: each transaction is one SQL function and one round trip."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from minion_audit import Activity
from minion_postgres import Database, queries
from pydantic import TypeAdapter

from minion_gateway.agents.domain import from_stored as agent_from_stored
from minion_gateway.runs.changes import AttemptBegin, AttemptEnd, Charge
from minion_gateway.runs.domain import StepKind, StepState, step_key
from minion_gateway.summaries.domain import Job, SummaryResult

_QUERIES = queries.load(__package__)
_RESULT = TypeAdapter(SummaryResult)


@dataclass(frozen=True, slots=True)
class SummaryChange:
    """One step forward of a job. With `goes_on` the next step is begun; with `is_over` the job ends."""

    state: StepState
    result: SummaryResult | None = None
    goes_on: bool = False
    is_over: bool = False
    attempts_ended: Sequence[AttemptEnd] = ()
    attempts_begun: Sequence[AttemptBegin] = ()
    charges: Sequence[Charge] = ()
    audit: Sequence[Activity] = ()


class SummaryStore:
    """The jobs of all tenants, as one replica works on them."""

    def __init__(self, database: Database, *, replica: UUID, lease: timedelta) -> None:
        self._database = database
        self._replica = replica
        self._lease = lease

    async def lease(self, limit: int) -> list[tuple[UUID, UUID]]:
        """Leases jobs that nobody works on to this replica; returns (tenant, session)."""
        rows = await self._database.fetch(_QUERIES.lease_summaries, self._replica, self._lease, limit)
        return [(row["tenant_id"], row["session_id"]) for row in rows]

    async def renew(self, held: Sequence[Job]) -> set[tuple[UUID, UUID]]:
        """Renews leases in one statement; returns (tenant, session) of those that are still ours."""
        rows = await self._database.fetch(
            _QUERIES.renew_summaries,
            self._replica,
            self._lease,
            [job.tenant_id for job in held],
            [job.session_id for job in held],
            [job.epoch for job in held],
        )
        return {(row["tenant_id"], row["session_id"]) for row in rows}

    async def release(self) -> int:
        """Gives all jobs of this replica back."""
        count: int = await self._database.fetch_value(_QUERIES.release_summaries, self._replica)
        return count

    async def load(self, tenant_id: UUID, session_id: UUID) -> Job | None:
        """Reads a job that this replica has leased; None when it is ours no more."""
        row = await self._database.fetch_one(_QUERIES.read_summary_job, tenant_id, session_id, self._replica)
        if row is None:
            return None
        return Job(
            tenant_id=_uuid(tenant_id),
            session_id=_uuid(session_id),
            run_id=_uuid(row["run_id"]),
            step=row["step_sequence"],
            epoch=row["epoch"],
            recovery_count=row["recovery_count"],
            deferral_count=row["deferral_count"],
            agent=agent_from_stored(row["snapshot"]),
            user_id=row["user_id"],
            principal=row["principal"],
            trace_id=row["trace_id"],
            span_id=row["span_id"],
            attempt=row["attempt"],
            asked=row["asked"],
            result=None if row["result"] is None else _RESULT.validate_python(row["result"]),
        )

    async def advance(self, job: Job, change: SummaryChange) -> bool:
        """Moves a job on; False to a ghost."""
        following = job.step + 1
        begun: list[dict[str, Any]] = [
            {"sequence": following, "kind": StepKind.SUMMARY, "key": step_key(job.run_id, following), "intent": {}}
        ]
        told = change.state is not StepState.STARTED or change.result is not None
        moved: bool = await self._database.fetch_value(
            _QUERIES.advance_summary,
            job.tenant_id,
            job.session_id,
            job.epoch,
            following if change.goes_on else None,
            change.is_over,
            [{"sequence": job.step, "state": change.state, "result": change.result}] if told else None,
            begun if change.goes_on else None,
            change.attempts_ended or None,
            change.attempts_begun or None,
            [charge.row() for charge in change.charges] or None,
            [activity.row(job.principal) for activity in change.audit] or None,
        )
        return moved

    async def defer(self, job: Job, pause: timedelta) -> None:
        """Puts a job off; nothing happens where it is another replica's."""
        await self._database.execute(_QUERIES.defer_summary, job.tenant_id, job.session_id, job.epoch, pause)


def _uuid(value: UUID) -> UUID:
    # asyncpg's own subclass is one that orjson doesn't know.
    return UUID(int=value.int)
