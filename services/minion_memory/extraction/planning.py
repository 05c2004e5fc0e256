"""What is done with what was drawn: the rules by which a memory is made, changed, ended or left as it is.

A memory is only ever changed or ended by something said under its own key. Likeness ends nothing.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from minion_memory.extraction.domain import EXTRACTOR_LABEL, Drawn, Job
from minion_memory.memories.domain import MOST_LABELS, Memory, NewMemory, Source, Trust

_RANK = {Trust.TOOL: 0, Trust.ASSERTED: 1, Trust.USER: 2}


class Step(enum.Enum):
    """What happens to a memory."""

    CREATE = "create"
    REVISE = "revise"
    SUPERSEDE = "supersede"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Planned:
    """One step: what is stored (unless KEEP), which memory it concerns, which it ends (SUPERSEDE), and why."""

    step: Step
    memory_id: UUID
    reason: str
    stored: NewMemory | None = None
    ended: UUID | None = None


@dataclass(frozen=True, slots=True)
class _Current:
    """What stands under a key while the plan is made."""

    memory: Memory | NewMemory
    occurred: datetime

    @property
    def ended(self) -> datetime | None:
        return self.memory.valid_until


def plan(drawn: Iterable[Drawn], known: Mapping[str, Memory], job: Job) -> list[Planned]:
    """Decides what becomes of each thing drawn, in the order in which it was said.

    `known` holds what stands under their keys now, by key.
    """
    current = {key: _Current(memory, memory.occur_time) for key, memory in known.items()}
    steps = []
    for one in sorted(drawn, key=lambda each: each.occur_time):
        step = _step(one, current.get(one.proposal.key), job)
        if step.stored is not None:
            current[one.proposal.key] = _Current(step.stored, one.occur_time)
        steps.append(step)
    return steps


def _step(one: Drawn, current: _Current | None, job: Job) -> Planned:
    if current is None:
        created = _new(one, job)
        return Planned(Step.CREATE, created.memory_id, f"Drawn by {job.extractor}.", created)
    memory = current.memory
    same = says_the_same(memory.content, one.proposal.content)
    if current.ended is not None:
        if same and memory.superseded_by is not None:
            return Planned(Step.KEEP, memory.memory_id, "Another memory says the same.")
        if one.occur_time < current.ended:
            return Planned(Step.KEEP, memory.memory_id, "It ended later.")
        return _superseding(one, memory, job, "It had ended, and was said anew.")
    if same:
        if _RANK[one.trust] <= _RANK[memory.trust]:
            return Planned(Step.KEEP, memory.memory_id, "Known already.")
        return _revised(one, memory, job, "The user says so too.")
    if one.occur_time < current.occurred:
        return Planned(Step.KEEP, memory.memory_id, "What is known was said later.")
    if _RANK[one.trust] < _RANK[memory.trust]:
        return Planned(Step.KEEP, memory.memory_id, "Said otherwise by one who is trusted less.")
    if one.proposal.supersedes:
        return _superseding(one, memory, job, "No longer so: later something else was said.")
    return _revised(one, memory, job, "Said anew.")


def _superseding(one: Drawn, ended: Memory | NewMemory, job: Job, reason: str) -> Planned:
    created = _new(one, job)
    return Planned(Step.SUPERSEDE, created.memory_id, reason, created, ended.memory_id)


def _revised(one: Drawn, old: Memory | NewMemory, job: Job, reason: str) -> Planned:
    """The same memory in its next state; what its owner keeps with it stays."""
    fresh = _new(one, job)
    labels = {**old.labels, **fresh.labels}
    revised = replace(
        fresh,
        memory_id=old.memory_id,
        # One that has as many as may be gets none more: an import would refuse it.
        labels=labels if len(labels) <= MOST_LABELS else old.labels,
        metadata=old.metadata,
        importance=max(fresh.importance, old.importance),
        valid_from=old.valid_from,
    )
    return Planned(Step.REVISE, old.memory_id, reason, revised)


def _new(one: Drawn, job: Job) -> NewMemory:
    proposal = one.proposal
    return NewMemory(
        memory_id=uuid7(),
        agent_id=job.agent_id,
        user_id=job.user_id,
        key=proposal.key,
        type=proposal.type,
        content=proposal.content,
        speaker=one.speaker,
        importance=proposal.importance,
        confidence=proposal.confidence,
        trust=one.trust,
        labels={EXTRACTOR_LABEL: job.extractor},
        metadata={},
        source=Source(job.session_id, proposal.sequences, one.quote),
        valid_from=one.valid_from,
        valid_until=None,
        occur_time=one.occur_time,
        embedding=None,
    )


def says_the_same(one: str, other: str) -> bool:
    """Whether two contents are the same but for case, spacing and a final stop."""
    return _plain(one) == _plain(other)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".!")
