"""What an agent is, where it can be in its life, and what can happen to it."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from minion_errors import Aborted, FailedPrecondition

from minion_registry.canonical import same


class AgentStatus(enum.Enum):
    """Where an agent is in its life: draft → active ⇄ inactive → archived, and draft → archived."""

    DRAFT = "draft"
    ACTIVE = "active"
    INACTIVE = "inactive"
    ARCHIVED = "archived"  # terminal

    def may_become(self, other: "AgentStatus") -> bool:
        """Tells whether the move is allowed; staying is no move."""
        return other in _TRANSITIONS[self]


_TRANSITIONS: Mapping[AgentStatus, frozenset[AgentStatus]] = {
    AgentStatus.DRAFT: frozenset({AgentStatus.ACTIVE, AgentStatus.ARCHIVED}),
    AgentStatus.ACTIVE: frozenset({AgentStatus.INACTIVE}),
    AgentStatus.INACTIVE: frozenset({AgentStatus.ACTIVE, AgentStatus.ARCHIVED}),
    AgentStatus.ARCHIVED: frozenset(),
}


class BehaviorType(enum.Enum):
    """The strategies that the gateway knows to drive an agent's steps by."""

    CONVERSATIONAL = "conversational"
    TOOL_USE = "tool_use"


@dataclass(frozen=True, slots=True)
class LlmConfig:
    """The model that an agent asks; empty, None and 0 are the gateway's defaults, and text where there is no schema."""

    model: str = ""
    temperature: float | None = None
    max_output_tokens: int = 0
    response_schema: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class MemoryPolicy:
    """What is recalled for a turn, and what is remembered of a session; 0, None and empty are the defaults."""

    recall: bool = False
    max_memories: int = 0
    min_score: float | None = None
    episodes: bool = False
    extract: bool = False
    extractor: str = ""
    extract_after_messages: int = 0


@dataclass(frozen=True, slots=True)
class ContextPolicy:
    """How much history the model is shown; 0 is the default."""

    token_budget: int = 0
    max_messages: int = 0


@dataclass(frozen=True, slots=True)
class SummaryPolicy:
    """Whether long sessions are summarized; 0, None and empty are the defaults."""

    enabled: bool = False
    trigger_tokens: int = 0
    target_tokens: int = 0
    keep_messages: int | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class BehaviorSettings:
    """Limits and policies of an agent's turns; 0 and None are the defaults."""

    max_steps: int = 0
    max_duration: timedelta | None = None
    memory: MemoryPolicy = MemoryPolicy()
    context: ContextPolicy = ContextPolicy()
    summary: SummaryPolicy = SummaryPolicy()


@dataclass(frozen=True, slots=True)
class AgentContents:
    """What the owner of an agent says about it: all that a revision keeps."""

    name: str
    display_name: str
    description: str
    behavior_type: BehaviorType
    instructions: str
    llm: LlmConfig
    capabilities: tuple[str, ...]
    behavior: BehaviorSettings
    metadata: dict[str, Any]
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent as stored, in one of its revisions.

    `version` counts every change, `revision` is that of the contents. In a revision that isn't live, `update_time` is
    when that revision was made. Results that earlier releases kept for replays know no other revision than their own.
    """

    agent_id: UUID
    contents: AgentContents
    status: AgentStatus
    revision: int
    version: int
    create_time: datetime
    update_time: datetime
    live_revision: int = 0
    latest_revision: int = 0

    @property
    def etag(self) -> str:
        """What a caller sends back to say which version was read."""
        return str(self.version)

    def check_etag(self, etag: str) -> None:
        """Raises Aborted (ETAG_MISMATCH) when the caller read another version; the empty etag asks for no check."""
        if etag and etag != self.etag:
            raise Aborted(
                "The agent changed since it was read.",
                reason="ETAG_MISMATCH",
                metadata={"agent_id": str(self.agent_id), "etag": self.etag},
            )

    def check_move(self, to: AgentStatus) -> None:
        """Raises FailedPrecondition (AGENT_TRANSITION_ILLEGAL), which names both states, unless the move is allowed."""
        if not self.status.may_become(to):
            raise FailedPrecondition(
                f"An agent can't go from {self.status.value} to {to.value}.",
                reason="AGENT_TRANSITION_ILLEGAL",
                metadata={"agent_id": str(self.agent_id), "from": self.status.name, "to": to.name},
            )

    def check_open(self) -> None:
        """Raises FailedPrecondition (AGENT_STATUS_UNSUITABLE) when the agent takes no changes any more."""
        if self.status is AgentStatus.ARCHIVED:
            raise self._unsuitable("An archived agent takes no changes.")

    def check_active(self) -> None:
        """Raises FailedPrecondition (AGENT_STATUS_UNSUITABLE) unless the agent takes turns."""
        if self.status is not AgentStatus.ACTIVE:
            raise self._unsuitable("The agent isn't active.")

    def check_deletable(self) -> None:
        """Raises FailedPrecondition (AGENT_STATUS_UNSUITABLE) when the agent takes turns or may again."""
        if self.status not in (AgentStatus.DRAFT, AgentStatus.ARCHIVED):
            raise self._unsuitable("Only a draft or archived agent can be deleted.")

    def _unsuitable(self, message: str) -> FailedPrecondition:
        return FailedPrecondition(
            message,
            reason="AGENT_STATUS_UNSUITABLE",
            metadata={"agent_id": str(self.agent_id), "status": self.status.name},
        )


@dataclass(frozen=True, slots=True)
class AgentName:
    """Names an agent by its id or by its name: exactly one is set."""

    agent_id: UUID | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class AgentFilter:
    """Which agents a list holds; None and empty match all."""

    status: AgentStatus | None = None
    behavior_type: str | None = None
    capabilities: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AgentUpdate:
    """What an update asks for: fields of the contents with their new values, laid over a revision; 0 is the live one.

    `stage` keeps the new revision for a rollout, and the live one goes on.
    """

    fields: dict[str, Any]
    base_revision: int = 0
    stage: bool = False

    def over(self, base: AgentContents) -> AgentContents:
        """Gives the contents that come of it."""
        return replace(base, **self.fields)

    def changed(self, base: AgentContents) -> list[str]:
        """Names the fields that it makes another value of, sorted."""
        return sorted(name for name, value in self.fields.items() if not same(getattr(base, name), value))


@dataclass(frozen=True, slots=True)
class AgentHit:
    """An agent that a search found, and how well it fits: above 0, at most 1."""

    agent: Agent
    score: float


def count_values(metadata: Any) -> int:
    """Counts the texts, numbers, true, false and null that stand anywhere in JSON."""
    match metadata:
        case dict():
            return sum(count_values(value) for value in metadata.values())
        case list():
            return sum(count_values(value) for value in metadata)
        case _:
            return 1


class AgentChangeKind(enum.Enum):
    """What happened to an agent."""

    SYNCED = "synced"  # nothing; never stored
    CREATED = "created"
    UPDATED = "updated"
    STATUS_CHANGED = "status_changed"
    TOOLS_CHANGED = "tools_changed"
    ROLLOUT_CHANGED = "rollout_changed"
    DELETED = "deleted"
    TOOL_CHANGED = "tool_changed"  # a tool, whichever agents it is bound to


@dataclass(frozen=True, slots=True)
class AgentChange:
    """One change, and the cursor behind it; SYNCED concerns no agent, TOOL_CHANGED a tool instead."""

    cursor: str
    kind: AgentChangeKind
    agent_id: UUID | None = None
    tenant_id: UUID | None = None
    tool_id: UUID | None = None
