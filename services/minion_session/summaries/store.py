"""Summaries in Postgres."""

from contextlib import AbstractAsyncContextManager
from uuid import UUID

import asyncpg
from minion_errors import AlreadyExists, FailedPrecondition, InvalidArgument, Violation
from minion_postgres import Database, Record, Transaction, queries
from uuid_utils.compat import uuid7

from minion_session.messages.domain import RunSource
from minion_session.sessions.domain import SessionStatus, not_found
from minion_session.sessions.store import PAGE_BYTES
from minion_session.summaries.domain import NewSummary, SavedPlace, Summary

_QUERIES = queries.load(__package__)
_BEYOND_ALL = 2**31 - 1


class SummaryStore:
    """Reads and writes summaries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def transaction(self, tenant_id: UUID) -> AbstractAsyncContextManager[Transaction]:
        """Opens a transaction in a tenant."""
        return self._database.transaction(tenant_id)

    async def save(self, transaction: Transaction, new: NewSummary) -> SavedPlace:
        """Stores a summary, or finds the one that its step stored.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`).
            InvalidArgument: it has no such message (`SEQUENCE_OUT_OF_RANGE`).
            FailedPrecondition: it changes no more (`SESSION_STATUS_FORBIDS`).
            AlreadyExists: the step saved another session's summary (`REQUEST_ID_REUSED`).
        """
        source = new.source
        try:
            row = await transaction.fetch_one(
                _QUERIES.save_summary,
                transaction.tenant_id,
                new.session_id,
                uuid7(),
                new.first_sequence,
                new.last_sequence,
                new.token_count,
                new.model,
                new.text,
                source.run_id if source else None,
                source.step_sequence if source else None,
            )
        except asyncpg.UniqueViolationError as error:
            # Two sessions are not put in order by a lock: of two saves of one step to both, the second fails here.
            raise _step_taken(source) if error.constraint_name == "summaries_of_step" else error from error
        assert row is not None
        match row["outcome"]:
            case "OK":
                return SavedPlace(new.session_id, row["saved_place"])
            case "SESSION_NOT_FOUND":
                raise not_found(new.session_id)
            case "SEQUENCE_OUT_OF_RANGE":
                raise InvalidArgument(
                    "The session has no such message.",
                    reason="SEQUENCE_OUT_OF_RANGE",
                    metadata={"last_sequence": str(row["last_sequence"])},
                    violations=[Violation("last_sequence", f"must be at most {row['last_sequence']}")],
                )
            case "SESSION_STATUS_FORBIDS":
                status = SessionStatus(row["status"])
                raise FailedPrecondition(
                    f"The session is {status.value}.",
                    reason="SESSION_STATUS_FORBIDS",
                    metadata={"session_id": str(new.session_id), "status": status.name, "wanted": "SUMMARY"},
                )
            case "STEP_ELSEWHERE":
                raise _step_taken(source)
            case outcome:
                raise ValueError(f"the database answered {outcome!r}, which this release doesn't know")

    async def at(self, transaction: Transaction, saved: SavedPlace) -> Summary:
        """Reads a saved summary.

        Raises:
            NotFound: its session was deleted (`SESSION_NOT_FOUND`).
        """
        row = await transaction.fetch_one(_QUERIES.get_summary, transaction.tenant_id, saved.session_id, saved.place)
        if row is None:
            raise not_found(saved.session_id)
        return _summary_from_row(row)

    async def list(
        self, transaction: Transaction, session_id: UUID, *, before: int | None, page_size: int
    ) -> tuple[tuple[Summary, ...], int | None]:
        """Reads a page of summaries, newest first, less than 3 MiB of them; tells before which place there are more.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`).
        """
        rows = await transaction.fetch(
            _QUERIES.list_summaries, transaction.tenant_id, session_id, before or _BEYOND_ALL, page_size + 1
        )
        if not rows:
            raise not_found(session_id)
        found = [row for row in rows if row["place"] is not None]
        kept = [row for row in found[:page_size] if row["bytes"] <= PAGE_BYTES]
        more = kept[-1]["place"] if len(kept) < len(found) else None
        return tuple(_summary_from_row(row) for row in kept), more


def _summary_from_row(row: Record) -> Summary:
    return Summary(
        summary_id=row["summary_id"],
        session_id=row["session_id"],
        first_sequence=row["first_sequence"],
        last_sequence=row["last_sequence"],
        text=row["content"],
        token_count=row["token_count"],
        model=row["model"],
        run_id=row["run_id"],
        create_time=row["create_time"],
    )


def _step_taken(source: RunSource | None) -> AlreadyExists:
    assert source is not None
    return AlreadyExists(
        "This step of the run has saved the summary of another session.",
        reason="REQUEST_ID_REUSED",
        metadata={"run_id": str(source.run_id), "step_sequence": str(source.step_sequence)},
    )
