"""What goes out, and what came in."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from minion_memory.memories.domain import Embedding, Memory, Outcome


@dataclass(frozen=True, slots=True)
class Selection:
    """Which memories go out; None matches all. With vectors where they are wanted."""

    agent_id: UUID | None
    user_id: str | None
    include_vectors: bool


@dataclass(frozen=True, slots=True)
class Exported:
    """A memory on its way out, with its vector where that was wanted and there is one."""

    memory: Memory
    embedding: Embedding | None


@dataclass(frozen=True, slots=True)
class Imported:
    """How many memories came in, by what became of them."""

    created_count: int = 0
    updated_count: int = 0
    unchanged_count: int = 0

    @property
    def total(self) -> int:
        """How many memories came in."""
        return self.created_count + self.updated_count + self.unchanged_count

    def plus(self, outcomes: Iterable[Outcome]) -> "Imported":
        """Counts some more."""
        counted = list(outcomes)
        return Imported(
            created_count=self.created_count + counted.count(Outcome.CREATED),
            updated_count=self.updated_count + counted.count(Outcome.UPDATED),
            unchanged_count=self.unchanged_count + counted.count(Outcome.UNCHANGED),
        )
