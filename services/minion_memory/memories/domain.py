"""What is remembered, and the rules that need nothing else."""

import enum
import hashlib
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

# The index holds vectors in half precision: it refuses numbers above 65,504, and those of shorter vectors lose digits
# there, down to none at all.
_SHORTEST, _LONGEST = 1e-2, 6.5e4
_LONGEST_ETAG = 18
# Of one memory.
MOST_LABELS = 32


class MemoryType(enum.Enum):
    """What a memory is."""

    FACT = "fact"
    PREFERENCE = "preference"
    CONTEXT = "context"
    SKILL = "skill"


class Trust(enum.Enum):
    """Who vouches for a memory."""

    ASSERTED = "asserted"
    USER = "user"
    TOOL = "tool"


class Outcome(enum.Enum):
    """What storing did with a memory."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Embedding:
    """A text's place in a model's space."""

    model: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a memory was said."""

    session_id: UUID | None = None
    message_sequences: tuple[int, ...] = ()
    quote: str = ""


NO_SOURCE = Source()


# Nobody changes one, nor any of its kinds, but they aren't frozen: freezing makes each half as dear again, and a search
# makes ten.
@dataclass(slots=True, kw_only=True)
class Remembered:
    """What a memory says, and of whom."""

    memory_id: UUID
    agent_id: UUID
    user_id: str
    key: str
    type: MemoryType
    content: str
    speaker: str
    importance: float
    confidence: float
    trust: Trust
    labels: Mapping[str, str]
    metadata: Mapping[str, Any]
    source: Source
    valid_until: datetime | None


@dataclass(slots=True, kw_only=True)
class NewMemory(Remembered):
    """A memory to store; with no embedding, its content is to be embedded. Times that are None are the store's to say.

    `create_time` and `superseded_by` are those of a memory that was elsewhere before.
    """

    valid_from: datetime | None
    occur_time: datetime | None
    embedding: Embedding | None
    create_time: datetime | None = None
    superseded_by: UUID | None = None


@dataclass(slots=True, kw_only=True)
class Memory(Remembered):
    """A memory that is stored; `embedding_model` is empty while it has no vector."""

    valid_from: datetime
    occur_time: datetime
    embedding_model: str
    create_time: datetime
    update_time: datetime
    superseded_by: UUID | None
    access_count: int
    access_time: datetime | None
    revision: int

    @property
    def etag(self) -> str:
        """What a caller sends back to say which revision was read."""
        return str(self.revision)


class Cause(enum.Enum):
    """What made a revision of a memory."""

    STORED = "stored"
    UPDATED = "updated"
    EXTRACTED = "extracted"
    CONSOLIDATED = "consolidated"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class Update:
    """What is to change of a memory: fields of Memory with their new values.

    With an `etag`, only of the revision that has it. `embedding` is that of a new content; with none it is embedded.
    """

    memory_id: UUID
    values: Mapping[str, Any]
    embedding: Embedding | None
    etag: str
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """Why memories change: what makes the revision, why in a sentence, and who answers for it."""

    cause: Cause
    principal: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a memory."""

    memory: Memory
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Filters:
    """Which memories a list shows; None matches all."""

    agent_id: UUID | None
    user_id: str | None
    type: MemoryType | None
    session_id: UUID | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    include_ended: bool = False


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last memory of a page."""

    create_time: datetime
    memory_id: UUID


@dataclass(frozen=True, slots=True)
class Page:
    """Some memories, newest first; `more` says whether others follow."""

    memories: tuple[Memory, ...]
    more: bool


def revision_of(etag: str) -> int | None:
    """Reads the revision that an etag stands for; None when there is no etag, 0 (which none is) when it is not one."""
    if not etag:
        return None
    return int(etag) if etag.isascii() and etag.isdigit() and len(etag) <= _LONGEST_ETAG else 0


def key_of(content: str) -> str:
    """Derives the key of a memory that came without one: 32 hexadecimal digits of its content's SHA-256.

    Compatible forms, case and spacing don't count (Unicode NFKC, case folding), so that the same said twice is one.
    """
    normal = " ".join(unicodedata.normalize("NFKC", content).casefold().split())
    return hashlib.sha256(normal.encode()).hexdigest()[:32]


def vector_fault(values: Sequence[float], dimension: int) -> str | None:
    """Says what is wrong with a vector for a model of this dimension; None when it is right."""
    if len(values) != dimension:
        return f"must have {dimension} numbers, has {len(values)}"
    length = math.hypot(*values)
    if not math.isfinite(length):
        return "must hold finite numbers alone"
    if length == 0:
        return "must not be all zeros: it would point nowhere"
    return None


def measurable(values: Sequence[float]) -> Sequence[float]:
    """Scales a vector to length 1 where its own would not survive half precision; its direction is what counts."""
    length = math.hypot(*values)
    if _SHORTEST <= length <= _LONGEST:
        return values
    return [value / length for value in values]
