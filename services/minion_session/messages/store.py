"""Messages in Postgres: each operation is one function and one round trip."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from minion_errors import Aborted, AlreadyExists, FailedPrecondition, NotFound
from minion_postgres import Database, Key, Record, queries

from minion_session.messages.domain import (
    Append,
    Appended,
    Message,
    MessageQuery,
    NewMessage,
    Part,
    Role,
    RunSource,
    TextPart,
    Turn,
    blobs_of,
)
from minion_session.messages.stored_parts import part_from_json, part_to_json
from minion_session.sessions.domain import Session, SessionStatus, not_active, not_found
from minion_session.sessions.store import PAGE_BYTES, session_from_row
from minion_session.summaries.domain import Summary

_QUERIES = queries.load(__package__)
_ROLES = {role.value: role for role in Role}
# The index by which a step of a run appends once.
_STEPS = "messages_of_step"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Window:
    """What a context is cut from: a session, its newest summary, and its newest messages, oldest first."""

    session: Session
    summary: Summary | None
    messages: tuple[Message, ...]


class MessageStore:
    """Reads and writes messages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, tenant_id: UUID, append: Append, key: Key | None) -> Appended:
        """Stores a batch under the next sequences, or gives the first result of a replay.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`), or it hasn't a blob that a message names
                (`BLOB_NOT_FOUND`).
            FailedPrecondition: it takes no messages (`SESSION_NOT_ACTIVE`).
            Aborted: somebody appended since (`SEQUENCE_MOVED`).
            AlreadyExists: the request_id or the step was used for something else (`REQUEST_ID_REUSED`).
        """
        source = append.source
        messages = append.messages
        await self._check_blobs(tenant_id, append.session_id, messages)
        args = (
            tenant_id,
            append.session_id,
            key.request_id if key else None,
            key.digest if key else None,
            append.expected_sequence,
            source.run_id if source else None,
            source.step_sequence if source else None,
            append.release_hold,
            [message.role.value for message in messages],
            [message.author for message in messages],
            # JSON as text: asyncpg takes a list of lists for an array of two dimensions.
            [orjson.dumps([part_to_json(part) for part in message.parts]).decode() for message in messages],
            [message.token_count for message in messages],
            [message.byte_count for message in messages],
            [orjson.dumps(message.metadata).decode() if message.metadata else None for message in messages],
        )
        try:
            row = await self._database.fetch_one(_QUERIES.append_messages, *args)
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name != _STEPS:
                raise
            # Two tries of one step met, and the other's was stored first: now it is found.
            try:
                row = await self._database.fetch_one(_QUERIES.append_messages, *args)
            except asyncpg.UniqueViolationError as again:
                raise _taken_meanwhile(again, source) from again
        assert row is not None
        match row["outcome"]:
            case "OK":
                return Appended(row["first_sequence"], row["last_sequence"], row["create_time"])
            case "SEQUENCE_MOVED":
                raise Aborted(
                    "Somebody appended to the session since.",
                    reason="SEQUENCE_MOVED",
                    metadata={"last_sequence": str(row["last_sequence"])},
                )
            case _:
                raise _refused(row, append.session_id, source)

    async def list(
        self, tenant_id: UUID, query: MessageQuery, *, after: int, page_size: int
    ) -> tuple[tuple[Message, ...], bool]:
        """Reads a page of messages, less than 3 MiB of them; tells too whether there are more.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`).
        """
        rows = await self._database.fetch(
            _QUERIES.list_messages,
            tenant_id,
            query.session_id,
            after or None,
            query.descending,
            page_size,
            PAGE_BYTES,
        )
        if not rows:
            raise not_found(query.session_id)
        messages = _messages_of_page(rows[1:])
        if not messages:
            return messages, False
        # The sequence has no gaps, so its ends tell what is left.
        end = messages[-1].sequence
        return messages, end > 1 if query.descending else end < rows[0]["last_sequence"]

    async def begin_turn(self, tenant_id: UUID, turn: Turn) -> Window:
        """Stores the user's message, holds the session, and reads the newest messages within the turn's limits.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`), or it hasn't a blob that the message names
                (`BLOB_NOT_FOUND`).
            FailedPrecondition: it takes no messages (`SESSION_NOT_ACTIVE`), or another run holds it (`SESSION_HELD`).
            AlreadyExists: the step was used for something else (`REQUEST_ID_REUSED`).
        """
        message = turn.message
        await self._check_blobs(tenant_id, turn.session_id, [message])
        try:
            rows = await self._database.fetch(
                _QUERIES.begin_turn,
                tenant_id,
                turn.session_id,
                turn.source.run_id,
                turn.source.step_sequence,
                message.author,
                [part_to_json(part) for part in message.parts],
                message.token_count,
                message.byte_count,
                message.metadata or None,
                turn.hold,
                turn.token_budget,
                turn.max_messages,
                PAGE_BYTES,
            )
        except asyncpg.UniqueViolationError as error:
            raise _taken_meanwhile(error, turn.source) from error
        if rows[0]["outcome"] != "OK":
            raise _refused(rows[0], turn.session_id, turn.source)
        return window_from_rows(rows)

    async def end_turn(self, tenant_id: UUID, session_id: UUID, run_id: UUID) -> None:
        """Releases the run's hold, if it has it.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`).
        """
        if not await self._database.fetch_value(_QUERIES.end_turn, tenant_id, session_id, run_id):
            raise not_found(session_id)

    async def _check_blobs(self, tenant_id: UUID, session_id: UUID, messages: Sequence[NewMessage]) -> None:
        # A round trip of its own, for messages that name blobs alone: what is there stays as long as its session.
        named = blobs_of(messages)
        if not named:
            return
        missing = await self._database.fetch_value(_QUERIES.missing_blob, tenant_id, session_id, named)
        if missing is not None:
            raise NotFound(
                "The session has no such blob.",
                reason="BLOB_NOT_FOUND",
                metadata={"session_id": str(session_id), "blob_id": str(missing)},
            )


def window_from_rows(rows: Sequence[Record]) -> Window:
    """Reads a window: the first row holds the session and the summary, the others a message each, newest first."""
    head = rows[0]
    summary = None
    if head["summary_id"] is not None:
        summary = Summary(
            summary_id=head["summary_id"],
            session_id=head["session_id"],
            first_sequence=head["summary_first"],
            last_sequence=head["summary_last"],
            text=head["summary_text"],
            token_count=head["summary_tokens"],
            model=head["summary_model"],
            run_id=head["summary_run_id"],
            create_time=head["summary_time"],
        )
    session = session_from_row(head, metadata="session_metadata", create_time="session_create_time")
    return Window(session, summary, tuple(_message_from_row(row) for row in reversed(rows[1:])))


def _message_from_row(row: Record) -> Message:
    return Message(
        sequence=row["sequence"],
        role=_ROLES[row["role"]],
        author=row["author"],
        parts=_parts(row["parts"]),
        token_count=row["token_count"],
        create_time=(row["create_time"] - _EPOCH) // _MICROSECOND,
        run_id=row["run_id"],
        metadata=row["metadata"] or {},
    )


def _messages_of_page(rows: Sequence[Record]) -> tuple[Message, ...]:
    # A page has a thousand: taking a row apart costs less than asking for its columns, a list less than a generator.
    return tuple(
        [
            Message(
                sequence,
                _ROLES[role],
                author,
                _parts(parts) if text is None else (TextPart(text),),
                token_count,
                create_time,
                run_id,
                metadata or {},
            )
            for _, sequence, role, author, text, parts, token_count, create_time, run_id, metadata in rows
        ]
    )


def _parts(stored: list[dict[str, Any]]) -> tuple[Part, ...]:
    return tuple([part_from_json(part) for part in stored])


def _refused(row: Record, session_id: UUID, source: RunSource | None) -> Exception:
    match row["outcome"]:
        case "SESSION_NOT_FOUND":
            return not_found(session_id)
        case "SESSION_NOT_ACTIVE":
            return not_active(session_id, SessionStatus(row["status"]))
        case "SESSION_HELD":
            return FailedPrecondition(
                "Another run holds the session.",
                reason="SESSION_HELD",
                metadata={"session_id": str(session_id), "run_id": str(row["holder"])},
            )
        case "STEP_ELSEWHERE":
            return _step_taken(source)
        case outcome:
            raise ValueError(f"the database answered {outcome!r}, which this release doesn't know")


def _taken_meanwhile(error: asyncpg.UniqueViolationError, source: RunSource | None) -> Exception:
    # Two sessions are not put in order by a lock: of two appends of one step to both, the second fails here.
    return _step_taken(source) if error.constraint_name == _STEPS else error


def _step_taken(source: RunSource | None) -> AlreadyExists:
    assert source is not None
    return AlreadyExists(
        "This step of the run has appended something else.",
        reason="REQUEST_ID_REUSED",
        metadata={"run_id": str(source.run_id), "step_sequence": str(source.step_sequence)},
    )
