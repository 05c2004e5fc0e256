"""What a re-embedding is, and the rules of its worker."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from minion_errors import InvalidArgument, MinionError, NotFound

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 300.0
# What no later try mends: the gateway hasn't the model, or it makes vectors of another length than was registered.
_FOR_GOOD = frozenset({"MODEL_NOT_FOUND", "EMBEDDING_MISSHAPEN"})
# How long a move may get on by nothing before it is given up.
_PATIENCE = timedelta(hours=24)


class ReembeddingState(enum.Enum):
    """Where a move of memories to another model is."""

    RUNNING = "running"
    COMPLETED = "completed"  # terminal
    FAILED = "failed"  # terminal


@dataclass(frozen=True, slots=True)
class Reembedding:
    """The move of a tenant's memories to another model."""

    reembedding_id: UUID
    from_model: str
    to_model: str
    state: ReembeddingState
    memory_count: int
    done_count: int
    error: str
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's hold on a move; who comes with an older `epoch` has lost it."""

    tenant_id: UUID
    reembedding_id: UUID
    epoch: int


@dataclass(frozen=True, slots=True)
class Move:
    """What a worker must know of a move: the model it goes to, who asked for it, and for how long it is stuck."""

    target: str
    principal: str
    failure_count: int
    stuck: timedelta


@dataclass(frozen=True, slots=True)
class Text:
    """A memory's content to embed; `digest` tells whether it is still the same when its vector comes."""

    memory_id: UUID
    content: str
    digest: bytes


class PassEnd(enum.Enum):
    """How a pass over a tenant's memories ended."""

    MOVED = "moved"
    AGAIN = "again"  # memories still lack the new vector
    LOST = "lost"  # another worker has the lease


def not_found(reembedding_id: UUID) -> NotFound:
    """Makes the error of a move that isn't there."""
    return NotFound(
        "There is no such re-embedding.",
        reason="REEMBEDDING_NOT_FOUND",
        metadata={"reembedding_id": str(reembedding_id)},
    )


def pause_after(failures: int) -> timedelta:
    """Gives how long to wait after so many failures in a row."""
    return timedelta(seconds=min(_FIRST_PAUSE_SECONDS * 2 ** min(failures, 16), _LONGEST_PAUSE_SECONDS))


def is_for_good(fault: MinionError, move: Move) -> bool:
    """Says whether a move is to be given up: nothing later mends it, or it is stuck for a day."""
    cause = fault.metadata.get("cause", fault.reason)
    return cause in _FOR_GOOD or isinstance(fault, InvalidArgument) or move.stuck > _PATIENCE


def fault_text(fault: MinionError, texts: Sequence[Text]) -> str:
    """Says what is in the way, with no content of a memory in it."""
    cause = fault.metadata.get("cause", fault.reason)
    if isinstance(fault, InvalidArgument) and len(texts) == 1:
        return f"{cause}: the model does not take the memory {texts[0].memory_id}."
    return f"{cause}: {fault.message}"
