"""An erasure: what went of a user. Counts, no content."""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Erased:
    """What one step of an erasure deleted, and when."""

    erase_time: datetime
    sessions: int
    messages: int
    blobs: int
    summaries: int
    workspace_entries: int
    stored_replies: int

    def after(self, other: "Erased | None") -> "Erased":
        """Counts the step before this one in."""
        if other is None:
            return self
        return replace(
            self,
            sessions=self.sessions + other.sessions,
            messages=self.messages + other.messages,
            blobs=self.blobs + other.blobs,
            summaries=self.summaries + other.summaries,
            workspace_entries=self.workspace_entries + other.workspace_entries,
            stored_replies=self.stored_replies + other.stored_replies,
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an erasure deleted in all."""

    erasure_id: UUID
    erased: Erased
