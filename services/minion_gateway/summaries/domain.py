"""What is summarized: which stretch of a session, in what words, and when it is worth it."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from minion_gateway.agents.domain import ResolvedAgent, SummaryPolicy
from minion_gateway.runs.domain import TokenUsage

# One message never fills a question by itself: of a longer one its beginning and end are read.
LONGEST_ENTRY = 8_000
_SHORTEST_ENTRY = 200
_BYTES_A_TOKEN = 4
# Besides the transcript a question holds the earlier summary and what is to be done.
_TRANSCRIPT_SHARE = 0.75
# No model asks for so many calls at once; what a client has put there is not summarized.
_MOST_ENTRIES = 2_000
# The part of the trigger that is worth a question by itself.
_WORTH = 4
_LEFT_OUT = " … ({count} characters left out) … "


class Voice(enum.Enum):
    """Who speaks."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Entry:
    """A message as it is read for a summary.

    `calls` and `results` are the ids of the tool calls that it makes and answers; `tokens` is the session's count.
    """

    sequence: int
    voice: Voice
    text: str
    tokens: int
    calls: frozenset[str] = frozenset()
    results: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Covered:
    """The newest summary of a session."""

    first_sequence: int
    last_sequence: int
    text: str


NOTHING = Covered(1, 0, "")


@dataclass(frozen=True, slots=True)
class Plan:
    """What one question is to summarize. `more` says that the stretch that is due goes on behind it."""

    before: Covered
    entries: tuple[Entry, ...]
    more: bool

    @property
    def last_sequence(self) -> int:
        """The last message that the new summary covers."""
        return self.entries[-1].sequence


@dataclass(frozen=True, slots=True)
class SummaryResult:
    """A summary as a model wrote it; committed before it is saved in the session."""

    text: str
    first_sequence: int
    last_sequence: int
    more: bool
    finish_reason: str
    model: str
    usage: TokenUsage
    cost_nanos: int | None
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A session whose summary is due, as the replica that works on it has it."""

    tenant_id: UUID
    session_id: UUID
    run_id: UUID
    step: int
    epoch: int
    recovery_count: int
    deferral_count: int
    agent: ResolvedAgent
    user_id: str
    principal: str
    trace_id: str
    span_id: str
    attempt: int
    asked: bool
    result: SummaryResult | None

    @property
    def policy(self) -> SummaryPolicy:
        """The agent's policy when its run was accepted."""
        return self.agent.summary or SummaryPolicy()

    @property
    def model(self) -> str:
        """The model that writes the summary."""
        return self.policy.model or self.agent.model

    def next_step(self) -> "Job":
        """The job at the step that follows."""
        return replace(self, step=self.step + 1, attempt=1, asked=False, result=None)


@dataclass(frozen=True, slots=True)
class Asked:
    """When a model was asked, and at which attempt."""

    attempt: int
    time: datetime


class Reading:
    """Takes a session's messages after the newest summary, in order, until enough is known for a plan.

    Args:
        before: the newest summary.
        last: the session's last message.
        policy: when is a summary due, and how many messages stay out of it.
        input_tokens: what one question may take.
    """

    def __init__(self, before: Covered, last: int, policy: SummaryPolicy, input_tokens: int) -> None:
        self._before = before
        self._last = last
        self._policy = policy
        self._limit = last - policy.keep_messages
        self._budget = int(input_tokens * _BYTES_A_TOKEN * _TRANSCRIPT_SHARE)
        self._entries: list[Entry] = []
        self._size = 0
        self._has_end = False
        self._tokens = 0
        self.place = before.last_sequence

    @property
    def done(self) -> bool:
        """Whether reading on would change nothing."""
        if self._limit <= self._before.last_sequence or self.place >= self._last:
            return True
        due = self._tokens > self._policy.trigger_tokens
        return due and (self.place > self._limit or self._is_full)

    @property
    def _is_full(self) -> bool:
        # However long the first exchange is, it is read to its end.
        return self._size > 2 * self._budget and (self._has_end or len(self._entries) >= _MOST_ENTRIES)

    def take(self, entries: Sequence[Entry]) -> None:
        """Reads on."""
        for entry in entries:
            self._tokens += entry.tokens
            self.place = entry.sequence
            # The one behind the limit tells whether an exchange ends there.
            if entry.sequence <= self._limit + 1 and not self._is_full:
                self._has_end |= bool(self._entries) and entry.voice is not Voice.TOOL
                self._entries.append(entry)
                self._size += len(entry.text.encode())

    def plan(self) -> Plan | None:
        """Returns what to summarize; None where nothing is due, or where it would gain nothing."""
        if self._tokens <= self._policy.trigger_tokens:
            return None
        length = _whole(self._entries, limit=self._limit, last=self._last, budget=self._budget)
        chosen = tuple(self._entries[:length])
        # Where the newest messages alone pass the trigger, each turn would ask for the little that stands before them.
        if sum(entry.tokens for entry in chosen) < self._policy.trigger_tokens // _WORTH:
            return None
        more = chosen[-1].sequence < self._limit and self._size > self._budget
        return Plan(self._before, _fitted(chosen, self._budget), more)


def _whole(entries: Sequence[Entry], *, limit: int, last: int, budget: int) -> int:
    """Returns how many entries may be summarized together without parting a tool call from its result.

    The most that fit the budget, up to the end of a turn where one ends there; the first exchange even if it doesn't.
    """
    size = 0
    turn = exchange = 0
    unanswered: frozenset[str] = frozenset()
    for index, entry in enumerate(entries):
        if entry.sequence > limit:
            break
        size += len(entry.text.encode())
        if size > budget and exchange:
            break
        unanswered = unanswered - entry.results if entry.voice is Voice.TOOL else entry.calls
        following = entries[index + 1].voice if index + 1 < len(entries) else None
        if following is Voice.TOOL or (following is None and (unanswered or entry.sequence < last)):
            continue
        exchange = index + 1
        if following in {None, Voice.USER}:
            turn = index + 1
    return turn or exchange


def _fitted(entries: tuple[Entry, ...], budget: int) -> tuple[Entry, ...]:
    """Cuts long messages further where one exchange alone passes the budget."""
    if sum(len(entry.text.encode()) for entry in entries) <= budget:
        return entries
    share = max(_SHORTEST_ENTRY, budget // (_BYTES_A_TOKEN * len(entries)))
    return tuple(replace(entry, text=shortened(entry.text, share)) for entry in entries)


def shortened(text: str, limit: int) -> str:
    """Returns the beginning and the end of a text that is longer than so many characters."""
    if len(text) <= limit:
        return text
    head, tail = limit * 3 // 4, limit // 4
    return text[:head] + _LEFT_OUT.format(count=len(text) - head - tail) + text[-tail:]


def ended_whole(text: str, *, was_cut: bool) -> str:
    """Returns a summary that ends with a sentence: of one that was cut off, what came before."""
    text = text.strip()
    if not was_cut:
        return text
    end = max(text.rfind(mark) for mark in (". ", ".\n", "! ", "? ", "。", "\n"))
    return text[: end + 1].rstrip() if end > len(text) // 2 else text
