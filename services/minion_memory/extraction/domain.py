"""What is drawn from sessions, and the jobs that draw it."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from minion_memory.memories.domain import Memory, MemoryType, Trust

# The extractor of episodes: it asks no model.
EPISODES = "episodes-1"
# On every memory that is an episode; consolidation leaves those alone.
EPISODE_LABEL = "minion.episode"
# On every memory that an extractor drew: the extractor's name.
EXTRACTOR_LABEL = "minion.extractor"
# What one job reads at most.
MOST_MESSAGES = 1_000


class Trigger(enum.Enum):
    """Why a job runs."""

    REQUESTED = "requested"
    ENDED = "ended"
    IDLE = "idle"
    MESSAGES = "messages"


class JobState(enum.Enum):
    """Where a job is."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class ExtractionOutcome(enum.Enum):
    """What became of a memory in an extraction."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    UNCHANGED = "unchanged"


class Role(enum.Enum):
    """Who speaks in a session."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Touched:
    """One memory that a job touched; holds no content."""

    memory_id: UUID
    outcome: ExtractionOutcome
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The drawing of memories from a stretch of a session."""

    job_id: UUID
    session_id: UUID
    agent_id: UUID
    user_id: str
    extractor: str
    trigger: Trigger
    principal: str
    state: JobState
    first_sequence: int
    last_sequence: int
    attempt_count: int
    error: str
    created_count: int
    updated_count: int
    deleted_count: int
    unchanged_count: int
    refused_count: int
    touched: tuple[Touched, ...]
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class SourceMessage:
    """A message of a session, as an extractor reads it: its words, or what a tool answered as JSON."""

    sequence: int
    role: Role
    author: str
    text: str
    create_time: datetime

    @property
    def speaker(self) -> str:
        """Who said it."""
        return self.author or self.role.value


@dataclass(frozen=True, slots=True)
class Session:
    """A session, as extraction sees it. `fork_sequence` is up to where its messages are another session's."""

    session_id: UUID
    agent_id: UUID
    user_id: str
    last_sequence: int
    fork_sequence: int
    is_active: bool
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Policy:
    """What an agent wants remembered of its sessions."""

    extract: bool = False
    episodes: bool = False
    extractor: str = ""
    extract_after_messages: int = 40


@dataclass(frozen=True, slots=True)
class Stretch:
    """Messages to draw from; zeros are for the service to say."""

    session_id: UUID
    extractor: str
    first_sequence: int
    last_sequence: int


@dataclass(frozen=True, slots=True)
class JobFilters:
    """Which jobs a list shows; None matches all."""

    session_id: UUID | None
    state: JobState | None


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some jobs, newest first; `more` says whether others follow."""

    jobs: tuple[Job, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an extractor says is worth remembering, before anybody has checked it.

    `valid_from` is unset where the extractor doesn't say. `supersedes` says that what stood under the key is no longer
    so.
    """

    type: MemoryType
    key: str
    content: str
    quote: str
    sequences: tuple[int, ...]
    importance: float
    confidence: float
    valid_from: datetime | None
    supersedes: bool


@dataclass(frozen=True, slots=True)
class Drawn:
    """A proposal whose quote stands in its source, with what the source says: who spoke, when, and how trusted."""

    proposal: Proposal
    quote: str
    speaker: str
    trust: Trust
    occur_time: datetime
    valid_from: datetime


@dataclass(frozen=True, slots=True)
class ExtractionResult:
    """What became of one memory."""

    memory: Memory
    outcome: ExtractionOutcome
    reason: str


@dataclass(frozen=True, slots=True)
class Extracted:
    """What an extraction came to."""

    job: Job
    results: tuple[ExtractionResult, ...]


def unchanged(touched: Sequence[Touched]) -> tuple[Touched, ...]:
    """What a stretch comes to for whoever asks for it again: nothing is drawn twice."""
    again = ExtractionOutcome.UNCHANGED
    kept = [one for one in touched if one.outcome is not ExtractionOutcome.DELETED]
    return tuple(replace(one, outcome=again, reason="This stretch was drawn before.") for one in kept)
