"""What erasing takes away, and how long what is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from minion_memory.memories.domain import MemoryType


@dataclass(frozen=True, slots=True)
class Erased:
    """What one step of an erasure deleted; `done` says that nothing is left."""

    memory_count: int
    vector_count: int
    revision_count: int
    extraction_job_count: int
    stored_reply_count: int
    erase_time: datetime
    done: bool

    def after(self, before: "Erased") -> "Erased":
        """Sums this step and what went before it."""
        return Erased(
            memory_count=before.memory_count + self.memory_count,
            vector_count=before.vector_count + self.vector_count,
            revision_count=before.revision_count + self.revision_count,
            extraction_job_count=before.extraction_job_count + self.extraction_job_count,
            stored_reply_count=before.stored_reply_count + self.stored_reply_count,
            erase_time=self.erase_time,
            done=self.done,
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an erasure deleted, all in all."""

    erasure_id: UUID
    erased: Erased


@dataclass(frozen=True, slots=True)
class Retention:
    """For how long memories of a type are kept after their last change; a type that isn't named is kept for ever."""

    kept: Mapping[MemoryType, timedelta]
