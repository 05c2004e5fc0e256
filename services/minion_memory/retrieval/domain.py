"""What makes a memory fit a query, and the rules that need nothing else.

A score is a sum of shares. Meaning and words are the two that say what a memory is about; both lie between 0 and 1
whatever else is in the scope, so that they add up as they are: the cosine of the vectors, and the part of the query's
words (each by its rarity) that a memory says. Ranks would throw away by how much one memory fits better than the next.
"""

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from minion_memory.memories.domain import Embedding, Memory, MemoryType, Trust


class Plan(enum.Enum):
    """How a search was carried out."""

    EXACT = "exact"
    HNSW = "hnsw"
    HNSW_THEN_EXACT = "hnsw_then_exact"
    LEXICAL = "lexical"


@dataclass(frozen=True, slots=True)
class Weights:
    """What each part of a score counts at most, in the order in which the search takes them.

    Each is chosen for what it says, among round numbers. The signs' two were chosen while looking at LoCoMo's
    development half, where the next round numbers rank one or two points lower; the others hardly matter if halved
    or doubled.
    """

    # Two witnesses that err apart, neither better than the other: half each.
    meaning: float = 0.5
    words: float = 0.5
    # An answer follows its question and seldom repeats its words, so a turn takes part in what was said before it; a
    # third, since what it says itself comes first. What comes after takes up the subject less often.
    last: float = 0.3
    next: float = 0.1
    # A sign that the query itself asks for (who, when, in which month): less than half of what a full match in meaning
    # gives, so that signs decide between memories that fit, and bring up none that doesn't.
    sign: float = 0.2
    # A question is seldom what answers another. Half a sign, since the query didn't ask for it.
    question: float = 0.1
    # The rest decides between near equals, all of it together no more than a sign.
    recency: float = 0.05
    importance: float = 0.1
    access: float = 0.01
    trust: float = 0.05


WEIGHTS = Weights()
# After so long half of what recency gives is left: what a month ago was new is half as new.
HALF_LIFE = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What to look for, and which memories count; None and empty filters match all.

    With an `embedding` meaning is compared by it; else `query` is embedded. Words are compared by `query`.
    """

    agent_id: UUID
    user_id: str
    query: str
    embedding: Embedding | None
    types: frozenset[MemoryType]
    min_similarity: float | None
    limit: int
    labels: Mapping[str, str]
    metadata: Mapping[str, Any]
    occurred_after: datetime | None
    occurred_before: datetime | None
    session_id: UUID | None
    trusts: frozenset[Trust]
    as_of: datetime | None


@dataclass(slots=True)
class Shares:
    """What a score is made of."""

    semantic: float
    lexical: float
    neighborhood: float
    cues: float
    recency: float
    importance: float
    access: float
    trust: float

    @property
    def score(self) -> float:
        """Their sum."""
        return (
            self.semantic
            + self.lexical
            + self.neighborhood
            + self.cues
            + self.recency
            + self.importance
            + self.access
            + self.trust
        )


@dataclass(slots=True)
class Hit:
    """A memory found; `similarity` is the cosine of the vectors, None where one of them is missing."""

    memory: Memory
    similarity: float | None
    shares: Shares


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, best first; `scope_count` is how many memories the agent has of the user."""

    hits: tuple[Hit, ...]
    plan: Plan
    scope_count: int


@dataclass(frozen=True, slots=True)
class Signs:
    """What a query says of the memory that it wants, beside its subject."""

    asks_when: bool
    months: tuple[int, ...]
    years: tuple[int, ...]


_NO_SIGNS = Signs(False, (), ())

_WHEN = re.compile(r"\b(when|(what|which)\s+(day|date|month|year|time)|how\s+(long|recently))\b", re.IGNORECASE)
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
# Two months are verbs as well: those count with a capital alone, and not where they begin a sentence.
_MONTH = re.compile(
    r"\b(?P<plain>january|february|april|june|july|august|september|october|november|december)\b"
    r"|(?<=[^.!?\s])\s+(?P<verb>(?-i:March|May))\b",
    re.IGNORECASE,
)
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")


def signs(query: str) -> Signs:
    """Reads the signs of a query. English, as the words of the index are; another language has none."""
    if not query:
        return _NO_SIGNS
    months = {_MONTHS.index((found["plain"] or found["verb"]).lower()) + 1 for found in _MONTH.finditer(query)}
    years = {int(found[0]) for found in _YEAR.finditer(query)}
    return Signs(bool(_WHEN.search(query)), tuple(sorted(months)), tuple(sorted(years)))


def in_first_person(query: str, names: Iterable[str]) -> str:
    """Puts a query in the words of those who spoke: `When did Ann move?` becomes `When did I move?`.

    Speakers seldom say their own names, while a small model takes a name for most of what a text is about, and finds
    those who are spoken to.
    """
    for name in sorted(names, key=len, reverse=True):
        query = re.sub(rf"\b{re.escape(name)}['\u2019]s\b", "my", query, flags=re.IGNORECASE)
        query = re.sub(rf"\b{re.escape(name)}\b", "I", query, flags=re.IGNORECASE)
    return query


class AccessLog:
    """Counts which memories were brought since it was last emptied, of no more memories than it may hold.

    What comes when it is full is not counted: a count that is a little low costs less than memory without bound.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: dict[UUID, dict[UUID, int]] = {}
        self._size = 0

    def note(self, tenant_id: UUID, memory_ids: Iterable[UUID]) -> None:
        """Counts memories that a search brought."""
        counts = self._counts.setdefault(tenant_id, {})
        for memory_id in memory_ids:
            known = counts.get(memory_id)
            if known is not None:
                counts[memory_id] = known + 1
            elif self._size < self._limit:
                counts[memory_id] = 1
                self._size += 1

    def take(self) -> Sequence[tuple[UUID, Mapping[UUID, int]]]:
        """Empties it; gives each tenant's counts."""
        taken, self._counts, self._size = self._counts, {}, 0
        return [(tenant_id, counts) for tenant_id, counts in taken.items() if counts]
