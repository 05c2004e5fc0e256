"""A summary: what a session's messages up to a place come to. It never changes, and never replaces the messages."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from minion_session.messages.domain import RunSource


@dataclass(frozen=True, slots=True)
class NewSummary:
    """A summary to save; it covers the messages from `first_sequence` to `last_sequence`."""

    session_id: UUID
    first_sequence: int
    last_sequence: int
    text: str
    token_count: int
    model: str
    source: RunSource | None


@dataclass(frozen=True, slots=True)
class Summary:
    """A saved summary; `run_id` is None when a client made it."""

    summary_id: UUID
    session_id: UUID
    first_sequence: int
    last_sequence: int
    text: str
    token_count: int
    model: str
    run_id: UUID | None
    create_time: datetime


@dataclass(frozen=True, slots=True)
class SavedPlace:
    """Which summary of its session a save made, from 1: all that is kept for a replay, without the words."""

    session_id: UUID
    place: int


@dataclass(frozen=True, slots=True)
class SummaryPage:
    """One page of summaries; the token is empty on the last."""

    summaries: tuple[Summary, ...]
    next_page_token: str
