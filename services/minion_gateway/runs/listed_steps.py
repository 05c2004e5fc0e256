"""The steps of a run, as its readers see them."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from minion_postgres import Database, Record, queries

from minion_gateway.runs.domain import StepKind, StepState, TokenUsage

_QUERIES = queries.load(__package__)


@dataclass(frozen=True, slots=True)
class ListedStep:
    """One step; `name` is the tool's or the model's. `usage` is None where there is nothing to pay."""

    sequence: int
    kind: StepKind
    state: StepState
    attempt: int
    name: str
    call_id: str
    usage: TokenUsage | None
    cost_nanos: int | None
    blob_id: str
    summarized_up_to: int
    error_reason: str
    start_time: datetime
    end_time: datetime | None


@dataclass(frozen=True, slots=True)
class StepPage:
    """One page of steps."""

    steps: tuple[ListedStep, ...]
    next_page_token: str


class StepReader:
    """Reads steps in Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, tenant_id: UUID, run_id: UUID, after: int, limit: int) -> list[ListedStep]:
        """Returns steps after one of them, in order; none of a run that isn't there."""
        async with self._database.transaction(tenant_id) as transaction:
            rows = await transaction.fetch(_QUERIES.list_run_steps, tenant_id, run_id, after, limit)
        return [_listed(row) for row in rows]


def _listed(row: Record) -> ListedStep:
    state = StepState(row["state"])
    paid = row["paid"] is not None
    return ListedStep(
        sequence=row["sequence"],
        kind=StepKind(row["kind"]),
        state=state,
        attempt=row["attempt"],
        name=row["tool"] or row["model"] or "",
        call_id=row["call_id"] or "",
        usage=TokenUsage(row["input_tokens"], row["output_tokens"], row["cached_tokens"], row["reasoning_tokens"])
        if paid
        else None,
        cost_nanos=row["cost_nanos"],
        blob_id=row["blob_id"] or "",
        summarized_up_to=row["summarized"] or 0,
        error_reason=row["reason"] or "",
        start_time=row["start_time"],
        # An answer that is committed and not saved yet has a time of its own; the step has none.
        end_time=None if state is StepState.STARTED else row["end_time"],
    )
