"""Runs in Postgres: each transaction of the engine is one SQL function and one round trip."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from minion_postgres import Database, Record, queries

from minion_gateway.agents.domain import AgentSnapshot, ResolvedAgent
from minion_gateway.agents.domain import from_stored as agent_from_stored
from minion_gateway.runs import happenings
from minion_gateway.runs.changes import AttemptBegin, Change, EndedRun, Ending, Fence
from minion_gateway.runs.domain import (
    QUEUE_LIMIT,
    BeginResult,
    History,
    LeasedRun,
    NewRun,
    Recalled,
    Run,
    RunError,
    RunState,
    SessionFacts,
    Step,
    StepKind,
    StepState,
    TokenUsage,
)
from minion_gateway.runs.happenings import MemoriesRecalled, Numbered, RunEvent
from minion_gateway.runs.rows import intent_from_row, result_from_row

_QUERIES = queries.load(__package__)
# Clients take answers of 4 MiB.
_PAGE_BYTES = 3 * 1024 * 1024


class Outcome(enum.Enum):
    """What became of a request for a run."""

    WORKING = "WORKING"
    SUBMITTED = "SUBMITTED"
    REPLAYED = "REPLAYED"
    REUSED = "REUSED"
    BUSY = "BUSY"
    QUEUE_FULL = "QUEUE_FULL"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What became of a request; `run_id` is the new run, the replayed one, or the active one that is in the way."""

    outcome: Outcome
    run_id: UUID
    time: datetime


@dataclass(frozen=True, slots=True)
class Submission:
    """All that is written down of a run when it is accepted."""

    tenant_id: UUID
    run_id: UUID
    principal: str
    new: NewRun
    session: SessionFacts
    agent: AgentSnapshot
    streamed: bool
    trace_id: str
    span_id: str
    steps: Sequence[Step]
    attempts: Sequence[AttemptBegin]


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one run on their way to the database."""

    fence: Fence
    events: Sequence[Numbered]


@dataclass(frozen=True, slots=True)
class WaitingRuns:
    """How many runs no replica drives, and for how many seconds the oldest has waited."""

    count: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """A run as its new driver finds it."""

    run: LeasedRun
    agent: ResolvedAgent
    steps: tuple[Step, ...]
    history: History


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs a list holds; None matches all."""

    session_id: UUID | None = None
    agent_id: UUID | None = None
    state: RunState | None = None


class RunStore:
    """The runs of all tenants, as one replica drives and reads them."""

    def __init__(self, database: Database, *, replica: UUID, lease: timedelta) -> None:
        self._database = database
        self._replica = replica
        self._lease = lease

    async def accept(self, submission: Submission) -> Acceptance:
        """Accepts a run, or says why not; see `gateway.accept_run`."""
        row = await self._accept(submission, with_snapshot=False)
        if row["outcome"] == "SNAPSHOT_MISSING":
            row = await self._accept(submission, with_snapshot=True)
        return Acceptance(Outcome(row["outcome"]), row["accepted_run"], row["accept_time"])

    async def advance(self, fence: Fence, change: Change) -> datetime | None:
        """Moves a run on; returns when, or None to a ghost."""
        time: datetime | None = await self._database.fetch_value(
            _QUERIES.advance_run, *_change_arguments(fence, change)
        )
        return time

    async def end(self, fence: Fence, change: Change, ending: Ending, *, takes_next: bool) -> EndedRun | None:
        """Moves a run out of WORKING; None to a ghost. With `takes_next` the session's next run is leased here."""
        row = await self._database.fetch_one(
            _QUERIES.end_run,
            *_change_arguments(fence, change),
            ending.state.value,
            ending.answer,
            ending.error.reason if ending.error else None,
            ending.error.message if ending.error else None,
            self._replica if takes_next else None,
            self._lease,
        )
        return None if row is None else EndedRun(row["change_time"], row["next_run"])

    async def append_events(self, batches: Sequence[Batch]) -> dict[UUID, datetime]:
        """Appends events of several runs; returns the time of those whose fence held."""
        rows = await self._database.fetch(
            _QUERIES.append_events,
            [
                {
                    "tenant": batch.fence.tenant_id,
                    "run": batch.fence.run_id,
                    "lease_epoch": batch.fence.epoch,
                    "first_event": batch.events[0].sequence,
                    "last_event": batch.events[-1].sequence,
                    "happened": [event.row() for event in batch.events],
                }
                for batch in batches
            ],
        )
        return {row["appended_run"]: row["append_time"] for row in rows}

    async def fence_of(self, tenant_id: UUID, run_id: UUID) -> tuple[Fence, RunState] | None:
        """Reads where a run is, after an acknowledgement was lost."""
        row = await self._database.fetch_one(_QUERIES.read_run, tenant_id, run_id)
        if row is None:
            return None
        fence = Fence(tenant_id, run_id, row["epoch"], row["version"], row["last_event_sequence"])
        return fence, RunState(row["state"])

    async def get(self, tenant_id: UUID, run_id: UUID) -> Run | None:
        """Returns a run."""
        row = await self._database.fetch_one(_QUERIES.read_run, tenant_id, run_id)
        return None if row is None else _run(row)

    async def events(self, tenant_id: UUID, run_id: UUID, after: int, limit: int) -> list[RunEvent]:
        """Returns events after a sequence, oldest first; the last of a run that ended comes with the run."""
        rows = await self._database.fetch(_QUERIES.read_events, tenant_id, run_id, after, limit)
        events = [
            RunEvent(run_id, row["sequence"], row["create_time"], happenings.from_stored(row["kind"], row["payload"]))
            for row in rows
        ]
        if events and events[-1].is_last:
            last = events[-1]
            ended = await self.get(tenant_id, run_id)
            events[-1] = RunEvent(run_id, last.sequence, last.create_time, last.payload, ended)
        return events

    async def find_request(self, tenant_id: UUID, request_id: UUID) -> tuple[UUID, bytes] | None:
        """Returns the run of a request_id, and the digest of the request."""
        async with self._database.transaction(tenant_id) as transaction:
            row = await transaction.fetch_one(_QUERIES.find_request, tenant_id, request_id)
        return None if row is None else (row["run_id"], row["request_digest"])

    async def page(
        self, tenant_id: UUID, wanted: RunFilter, before: UUID | None, page_size: int
    ) -> tuple[tuple[Run, ...], bool]:
        """Reads runs before one of them, newest first, 3 MiB of them or one; tells too whether there are more."""
        query = _QUERIES.list_runs
        if wanted.session_id is not None:
            query = _QUERIES.list_session_runs
        elif wanted.agent_id is not None:
            query = _QUERIES.list_agent_runs
        state = wanted.state.value if wanted.state else None
        async with self._database.transaction(tenant_id) as transaction:
            rows = await transaction.fetch(
                query, tenant_id, wanted.session_id, wanted.agent_id, state, before, page_size + 1, _PAGE_BYTES
            )
        kept = [_run(row) for row in rows[:page_size] if row is rows[0] or row["bytes"] <= _PAGE_BYTES]
        return tuple(kept), len(kept) < len(rows)

    async def lease(self, limit: int) -> list[tuple[UUID, UUID]]:
        """Leases runs whose lease ran out to this replica; returns (tenant, run)."""
        rows = await self._database.fetch(_QUERIES.lease_runs, self._replica, self._lease, limit)
        return [(row["tenant_id"], row["run_id"]) for row in rows]

    async def waiting(self) -> WaitingRuns:
        """Tells of the runs that wait for a replica, of all tenants."""
        row = await self._database.fetch_one(_QUERIES.runs_waiting)
        assert row is not None
        return WaitingRuns(row["waiting"], row["seconds"])

    async def renew(self, held: Sequence[LeasedRun]) -> set[UUID]:
        """Renews leases in one statement; returns the runs that are still ours."""
        rows = await self._database.fetch(
            _QUERIES.renew_leases,
            self._replica,
            self._lease,
            [run.tenant_id for run in held],
            [run.run_id for run in held],
            [run.epoch for run in held],
        )
        return {row["run_id"] for row in rows}

    async def release(self) -> int:
        """Gives all leases of this replica back."""
        count: int = await self._database.fetch_value(_QUERIES.release_leases, self._replica)
        return count

    async def load(self, tenant_id: UUID, run_id: UUID) -> Loaded | None:
        """Reads a run that this replica has leased, to drive it; None when it is ours no more."""
        async with self._database.transaction(tenant_id) as transaction:
            row = await transaction.fetch_one(_QUERIES.load_run, tenant_id, run_id, self._replica)
            if row is None:
                return None
            steps = tuple(_step(each) for each in await transaction.fetch(_QUERIES.list_steps, tenant_id, run_id))
            asked = next((s for s in steps if s.kind is StepKind.LLM and s.state is StepState.STARTED), None)
            shown: int | None = None
            if asked is not None:
                shown = await transaction.fetch_value(
                    _QUERIES.find_shown_text, tenant_id, run_id, asked.sequence, asked.attempt
                )
            told = {
                each["kind"]: each["payload"] for each in await transaction.fetch(_QUERIES.find_told, tenant_id, run_id)
            }
        history = History(shown, _memories(steps, told.get("memories_recalled")), "summary_used" in told)
        return Loaded(_leased(row), agent_from_stored(row["snapshot"]), steps, history)

    async def _accept(self, submission: Submission, *, with_snapshot: bool) -> Record:
        new, agent = submission.new, submission.agent.agent
        row = await self._database.fetch_one(
            _QUERIES.accept_run,
            submission.tenant_id,
            submission.run_id,
            new.session_id,
            agent.agent_id,
            agent.revision,
            submission.agent.digest,
            agent if with_snapshot else None,
            submission.session.user_id,
            submission.principal,
            new.request_id,
            new.digest if new.request_id else None,
            new.text,
            new.metadata,
            submission.streamed,
            new.queued,
            QUEUE_LIMIT,
            submission.trace_id,
            submission.span_id,
            self._replica,
            self._lease,
            [_begun(submission.run_id, step) for step in submission.steps],
            submission.attempts,
        )
        assert row is not None
        return row


def _change_arguments(fence: Fence, change: Change) -> tuple[object, ...]:
    totals, usage = change.totals, change.totals.usage
    return (
        fence.tenant_id,
        fence.run_id,
        fence.epoch,
        fence.version,
        fence.last_event - len(change.events) + 1,
        fence.last_event,
        totals.steps,
        [usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens],
        totals.cost_nanos,
        totals.unpriced_steps,
        change.ended or None,
        [_begun(fence.run_id, step) for step in change.begun] or None,
        change.attempts_ended or None,
        change.attempts_begun or None,
        [charge.row() for charge in change.charges] or None,
        [event.row() for event in change.events] or None,
        [activity.row(change.principal) for activity in change.audit] or None,
    )


def _begun(run_id: UUID, step: Step) -> dict[str, object]:
    return {
        "sequence": step.sequence,
        "kind": step.kind,
        "key": step.key(run_id),
        "intent": step.intent or {},
    }


def _step(row: Record) -> Step:
    kind = StepKind(row["kind"])
    return Step(
        row["sequence"],
        kind,
        StepState(row["state"]),
        row["attempt"],
        intent_from_row(kind, row["intent"]),
        result_from_row(kind, row["result"]),
    )


def _memories(steps: Sequence[Step], told: Any) -> tuple[Recalled, ...] | None:
    for step in steps:
        if isinstance(step.result, BeginResult):
            return step.result.memories
    if told is None:
        return None
    payload = happenings.from_stored("memories_recalled", told)
    assert isinstance(payload, MemoriesRecalled)
    return payload.memories


def _usage(row: Record) -> TokenUsage:
    return TokenUsage(row["input_tokens"], row["output_tokens"], row["cached_tokens"], row["reasoning_tokens"])


def _run(row: Record) -> Run:
    return Run(
        run_id=row["run_id"],
        session_id=row["session_id"],
        agent_id=row["agent_id"],
        agent_revision=row["agent_revision"],
        user_id=row["user_id"],
        state=RunState(row["state"]),
        answer=row["answer"],
        error=RunError(row["error_reason"], row["error_message"] or "") if row["error_reason"] else None,
        usage=_usage(row),
        cost_nanos=None if row["unpriced_steps"] else row["cost_nanos"],
        step_count=row["step_count"],
        recovery_count=row["recovery_count"],
        last_event_sequence=row["last_event_sequence"],
        trace_id=row["trace_id"],
        metadata=row["metadata"],
        create_time=row["create_time"],
        end_time=row["end_time"],
    )


def _leased(row: Record) -> LeasedRun:
    return LeasedRun(
        tenant_id=_uuid(row["tenant_id"]),
        run_id=_uuid(row["run_id"]),
        session_id=_uuid(row["session_id"]),
        agent_id=_uuid(row["agent_id"]),
        user_id=row["user_id"],
        principal=row["principal"],
        text=row["input"],
        metadata=row["metadata"],
        streamed=row["streamed"],
        trace_id=row["trace_id"],
        span_id=row["span_id"],
        epoch=row["epoch"],
        create_time=row["create_time"],
        version=row["version"],
        elapsed_seconds=row["elapsed"],
        recovery_count=row["recovery_count"],
        last_event_sequence=row["last_event_sequence"],
        usage=_usage(row),
        cost_nanos=row["cost_nanos"],
        unpriced_steps=row["unpriced_steps"],
    )


def _uuid(value: UUID) -> UUID:
    # asyncpg's own subclass is one that orjson doesn't know.
    return UUID(int=value.int)
