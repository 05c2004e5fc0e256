"""An agent as the gateway runs it: one revision with its tools, defaults filled in, filed under its digest."""

import enum
import hashlib
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from minion_errors import FailedPrecondition
from pydantic import TypeAdapter

# The defaults that minion.registry.v1 states for fields left at zero.
DEFAULT_STEPS = 10
DEFAULT_SECONDS = 300.0
DEFAULT_OUTPUT_TOKENS = 1_024
DEFAULT_MEMORIES = 5
DEFAULT_MINIMUM_SCORE = 0.25
DEFAULT_TOKEN_BUDGET = 8_000
DEFAULT_MESSAGES = 50
DEFAULT_TOOL_SECONDS = 30.0
DEFAULT_TRIGGER_TOKENS = 6_000
DEFAULT_TARGET_TOKENS = 500
DEFAULT_KEPT_MESSAGES = 10

# A share of the sessions is counted in hundredths of a percent.
_WHOLE = 10_000


class AgentStatus(enum.Enum):
    """Where an agent is in its life; ACTIVE ones alone take turns."""

    DRAFT = "DRAFT"
    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    ARCHIVED = "ARCHIVED"


class ToolEffect(enum.Enum):
    """What calling a tool does to the world; it decides what happens when a call may have been lost."""

    READ_ONLY = "READ_ONLY"
    IDEMPOTENT = "IDEMPOTENT"
    SIDE_EFFECT = "SIDE_EFFECT"

    @property
    def may_repeat(self) -> bool:
        """Whether a call that may have happened can be made again (with the same key)."""
        return self is not ToolEffect.SIDE_EFFECT


@dataclass(frozen=True, slots=True)
class BoundTool:
    """A tool that the agent may call, as it was bound; `configuration` is the tool's own with the binding's laid over.

    `needs_approval`: a person decides before each call. Snapshots of earlier releases don't have it.
    """

    name: str
    description: str
    input_schema: dict[str, Any]
    builtin: str
    effect: ToolEffect
    time_limit_seconds: float
    cost_per_call_nanos: int
    configuration: dict[str, Any]
    digest: str
    needs_approval: bool = False


@dataclass(frozen=True, slots=True)
class SummaryPolicy:
    """When the agent's sessions are summarized, how far and by whom; `model` is empty for the agent's own."""

    trigger_tokens: int = DEFAULT_TRIGGER_TOKENS
    target_tokens: int = DEFAULT_TARGET_TOKENS
    keep_messages: int = DEFAULT_KEPT_MESSAGES
    model: str = ""


@dataclass(frozen=True, slots=True)
class ResolvedAgent:
    """What a run pins when it is accepted. It never changes; another revision or binding is another one.

    `summary` is None where nothing is summarized, `response_schema` where the answer is text; snapshots of earlier
    releases have neither.
    """

    agent_id: UUID
    name: str
    revision: int
    behavior_type: str
    instructions: str
    model: str
    temperature: float | None
    max_output_tokens: int
    max_steps: int
    max_seconds: float
    recalls: bool
    max_memories: int
    min_score: float
    token_budget: int
    max_messages: int
    tools: tuple[BoundTool, ...] = ()
    summary: SummaryPolicy | None = None
    response_schema: dict[str, Any] | None = None

    def tool(self, name: str) -> BoundTool | None:
        """Returns the tool of this name, if the agent may call it."""
        return next((tool for tool in self.tools if tool.name == name), None)


@dataclass(frozen=True, slots=True)
class AgentSnapshot:
    """A resolved agent in its stored form; `digest` is the SHA-256 of `stored`."""

    agent: ResolvedAgent
    stored: bytes
    digest: bytes

    @classmethod
    def of(cls, agent: ResolvedAgent) -> "AgentSnapshot":
        """Writes an agent down."""
        stored = orjson.dumps(agent, option=orjson.OPT_SORT_KEYS)
        return cls(agent, stored, hashlib.sha256(stored).digest())


@dataclass(frozen=True, slots=True)
class Rollout:
    """A candidate revision that takes a share of the sessions: `basis_points` of 10,000, drawn by `salt`."""

    rollout_id: UUID
    basis_points: int
    salt: str
    candidate: AgentSnapshot


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the registry says of an agent now: whether it takes turns, and what a turn would be driven by.

    `snapshot` is the live revision's; `rollout` is None where none is under way.
    """

    status: AgentStatus
    snapshot: AgentSnapshot
    rollout: Rollout | None = None

    @property
    def size(self) -> int:
        """How many bytes it takes in its stored form; in memory it is some times as many."""
        return len(self.snapshot.stored) + (0 if self.rollout is None else len(self.rollout.candidate.stored))

    def snapshot_for(self, session_id: UUID) -> AgentSnapshot:
        """Returns what a turn of a session is driven by: the candidate where the rollout drew it, else the live one."""
        rollout = self.rollout
        if rollout is not None and takes_candidate(rollout.salt, str(session_id), rollout.basis_points):
            return rollout.candidate
        return self.snapshot

    def check_active(self) -> None:
        """Raises FailedPrecondition (AGENT_NOT_ACTIVE) unless the agent takes turns."""
        if self.status is not AgentStatus.ACTIVE:
            raise FailedPrecondition(
                "The session's agent is not active.",
                reason="AGENT_NOT_ACTIVE",
                metadata={"agent_id": str(self.snapshot.agent.agent_id), "status": self.status.value},
            )


def takes_candidate(salt: str, session_id: str, basis_points: int) -> bool:
    """Tells whether a rollout's candidate takes a session, as minion.registry.v1.RolloutAssignment states it.

    A pure function: the same on every replica and at every call, and true for all larger shares where it is for one.
    """
    drawn = hashlib.sha256(f"{salt}\0{session_id}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") % _WHOLE < basis_points


_STORED = TypeAdapter(ResolvedAgent)


def from_stored(stored: Any) -> ResolvedAgent:
    """Reads what `AgentSnapshot.of` wrote, parsed as JSON; fails loudly on anything else."""
    return _STORED.validate_python(stored)
