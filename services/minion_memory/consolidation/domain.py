"""The rules by which memories are put in order. They are the same every time, and need no model.

What says the same is one memory: the same kind, of the same subject, the same telling words in the same order. What is
filed under the same attribute and says otherwise is superseded by what was said later. Likeness alone joins nothing:
two sentences that differ in one number or one name are two facts, however near their vectors are.
"""

import enum
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from minion_memory.memories.domain import Memory, Trust

# Episodes are what was said; they are left as they are.
EPISODE_LABEL = "minion.episode"
# A prunable memory is of at most this importance, and neither stored nor found for so long.
PRUNED_IMPORTANCE = 0.3
PRUNED_AGE = timedelta(days=90)
# Vectors of the same words that are further apart than this are of different models or contents: not joined.
LEAST_SIMILARITY = 0.9
_RANK = {Trust.TOOL: 0, Trust.ASSERTED: 1, Trust.USER: 2}
_FILED_AWAY = re.compile(r"~[0-9a-f-]{36}$")
# Numbers with their sign and what stands between their digits, words with what makes C++ and C# of them, and marks.
_TOKEN = re.compile(r"(?<!\w)[+\-\u2212]?\d+(?:[.,:/\-]\d+)*|[^\W_]+[+#]*|[^\w\s]")
_MARKS = frozenset("%&@#")
# Words that a sentence can lose and still say the same. No negation, no pronoun that tells who, no preposition.
_FILLERS = frozenset(
    ["a", "an", "the", "is", "are", "was", "were", "user", "users", "s", "very", "really", "also", "does"]
)


class Kind(enum.Enum):
    """What a consolidation does."""

    MERGE = "merge"
    SUPERSEDE = "supersede"
    PRUNE = "prune"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that is done, or would be. `kept` is None for PRUNE."""

    kind: Kind
    memory_ids: tuple[UUID, ...]
    kept: UUID | None
    reason: str


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose memories are put in order, and how far."""

    agent_id: UUID
    user_id: str
    dry_run: bool
    prune: bool


@dataclass(frozen=True, slots=True)
class Consolidated:
    """What was done, or would be, and how many memories were looked at."""

    actions: tuple[Action, ...]
    memory_count: int


class Readings:
    """What contents tell and keys name, each read once: to read ten thousand long ones takes seconds."""

    def __init__(self, said: Iterable[tuple[str, str]] = ()) -> None:
        """Reads keys and contents, so that it is done when they are asked for."""
        self._telling: dict[str, tuple[str, ...]] = {}
        self._attributes: dict[str, str] = {}
        for key, content in said:
            self.attribute(key)
            self.telling(content)

    def telling(self, content: str) -> tuple[str, ...]:
        """What of a content makes it what it says."""
        if (words := self._telling.get(content)) is None:
            words = self._telling[content] = telling(content)
        return words

    def attribute(self, key: str) -> str:
        """The `subject/attribute` of a key."""
        if (attribute := self._attributes.get(key)) is None:
            attribute = self._attributes[key] = attribute_of(key)
        return attribute


def groups(memories: Sequence[Memory], readings: Readings) -> list[list[Memory]]:
    """Gives the memories that seem to say the same, two or more at a time; first the one to keep."""
    alike: dict[tuple[str, str, tuple[str, ...]], list[Memory]] = defaultdict(list)
    for memory in memories:
        words = readings.telling(memory.content)
        if words:
            alike[memory.type.value, _subject(readings.attribute(memory.key)), words].append(memory)
    return [sorted(group, key=_worth, reverse=True) for group in alike.values() if len(group) > 1]


def actions(
    memories: Sequence[Memory], apart: Iterable[frozenset[UUID]], now: datetime, readings: Readings, *, prune: bool
) -> tuple[Action, ...]:
    """Decides what is done with the memories of a scope that are so now, episodes left out.

    `apart` holds pairs whose vectors are too far from each other to say the same.
    """
    planned: list[Action] = []
    gone: set[UUID] = set()
    far = set(apart)
    for kept, *others in groups(memories, readings):
        merged = [other for other in others if frozenset((kept.memory_id, other.memory_id)) not in far]
        if merged:
            planned.append(Action(Kind.MERGE, _ids(merged), kept.memory_id, "They say the same."))
            gone.update(_ids(merged))
    for same in _by_attribute([memory for memory in memories if memory.memory_id not in gone], readings):
        current = max(same, key=_currency)
        older = [memory for memory in same if memory is not current and _RANK[memory.trust] <= _RANK[current.trust]]
        if older:
            reason = "Something else was said later of the same attribute."
            planned.append(Action(Kind.SUPERSEDE, _ids(older), current.memory_id, reason))
            gone.update(_ids(older))
    if prune:
        worthless = [memory for memory in memories if memory.memory_id not in gone and prunable(memory, now)]
        days = PRUNED_AGE.days
        planned += [
            Action(Kind.PRUNE, (memory.memory_id,), None, f"Of little importance, and of no use for {days} days.")
            for memory in worthless
        ]
    return tuple(planned)


def prunable(memory: Memory, now: datetime) -> bool:
    """Whether a memory is of so little worth that it may go."""
    since = now - PRUNED_AGE
    return (
        memory.importance <= PRUNED_IMPORTANCE
        and memory.update_time < since
        and (memory.access_time is None or memory.access_time < since)
    )


def telling(content: str) -> tuple[str, ...]:
    """What of a content makes it what it says, in order: words, numbers and symbols, and whether it asks."""
    plain = unicodedata.normalize("NFKC", content).casefold().rstrip()
    said = tuple(token for token in _TOKEN.findall(plain) if _tells(token))
    return (*said, "?") if said and plain.endswith("?") else said


def _tells(token: str) -> bool:
    if len(token) == 1 and not token.isalnum():
        # Currencies, signs of arithmetic, pictures; punctuation says nothing.
        return token in _MARKS or unicodedata.category(token).startswith("S")
    return token not in _FILLERS


def attribute_of(key: str) -> str:
    """The `subject/attribute` of a key, whatever its case and spacing; empty for a key that names none.

    A memory that was superseded and then put back has its id behind its key.
    """
    plain = _FILED_AWAY.sub("", unicodedata.normalize("NFKC", key).casefold())
    if "/" not in plain:
        return ""
    parts = [re.sub(r"[\s_-]+", "-", part).strip("-") for part in plain.split("/")]
    return "/".join(part for part in parts if part)


def sources_of(kept: Memory, merged: Sequence[Memory], *, most: int = 32) -> list[dict[str, object]]:
    """The places where merged memories were said, beside the one that the kept memory's own source names."""
    listed = _noted(kept)
    for memory in merged:
        source = memory.source
        if source.session_id is not None or source.quote:
            listed.append(
                {
                    "session_id": str(source.session_id) if source.session_id else "",
                    "message_sequences": list(source.message_sequences),
                    "quote": source.quote[:200],
                }
            )
        listed += _noted(memory)
    unique = {repr(sorted(entry.items())): entry for entry in listed}
    return list(unique.values())[: most - 1]


def _noted(memory: Memory) -> list[dict[str, object]]:
    """What an earlier merge noted; metadata is the callers' own, who may have put anything there."""
    noted = memory.metadata.get("minion_sources")
    return [entry for entry in noted if isinstance(entry, dict)] if isinstance(noted, list) else []


def _subject(attribute: str) -> str:
    """Whom an attribute is about; nobody in particular where there is none."""
    return attribute.partition("/")[0]


def _by_attribute(memories: Sequence[Memory], readings: Readings) -> list[list[Memory]]:
    same: dict[tuple[str, str], list[Memory]] = defaultdict(list)
    for memory in memories:
        if attribute := readings.attribute(memory.key):
            same[memory.type.value, attribute].append(memory)
    return [group for group in same.values() if len(group) > 1]


def _worth(memory: Memory) -> tuple[int, bool, float, float, str]:
    """What makes one of several that say the same the one to keep: trust, a source, importance, age."""
    has_source = memory.source.session_id is not None
    return _RANK[memory.trust], has_source, memory.importance, -memory.create_time.timestamp(), str(memory.memory_id)


def _currency(memory: Memory) -> tuple[datetime, datetime, str]:
    return memory.occur_time, memory.update_time, str(memory.memory_id)


def _ids(memories: Iterable[Memory]) -> tuple[UUID, ...]:
    return tuple(memory.memory_id for memory in memories)
