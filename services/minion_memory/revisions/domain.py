"""The states that a memory was in."""

from dataclasses import dataclass
from uuid import UUID

from minion_memory.memories.domain import Cause, Memory


@dataclass(frozen=True, slots=True)
class Revision:
    """One state of a memory: what it was, what made it so, why, and who answers for it. Made at its update time."""

    memory: Memory
    cause: Cause
    reason: str
    principal: str


@dataclass(frozen=True, slots=True)
class RevisionPage:
    """Some states, newest first; `more` says whether others follow."""

    revisions: tuple[Revision, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Rollback:
    """Which memory is to be put back into which state; with an `etag`, only from the revision that has it."""

    memory_id: UUID
    revision: int
    etag: str
