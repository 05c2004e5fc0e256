"""What a run tells its watchers: the payloads of its events, and their stored form."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from minion_gateway.runs.domain import Recalled, Run, RunState


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The run moved."""

    state: RunState


@dataclass(frozen=True, slots=True)
class MemoriesRecalled:
    """Memories were recalled for the turn."""

    memories: tuple[Recalled, ...]


@dataclass(frozen=True, slots=True)
class SummaryUsed:
    """A summary stands for older messages of the session."""

    summary_id: str
    first_sequence: int
    last_sequence: int
    tokens: int
    model: str


@dataclass(frozen=True, slots=True)
class TextAdded:
    """The model went on with its answer."""

    step: int
    attempt: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A tool is about to be called."""

    step: int
    call_id: str
    name: str
    arguments: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """A tool answered."""

    step: int
    call_id: str
    name: str
    output: Any
    is_error: bool
    nanoseconds: int
    blob_id: str = ""


@dataclass(frozen=True, slots=True)
class AttemptSuperseded:
    """A model step is tried again; its text from the event `void_from` on is void."""

    step: int
    attempt: int
    void_from: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The run ended. How is in its row, which no longer changes."""


Payload = (
    StateChanged | MemoriesRecalled | SummaryUsed | TextAdded | ToolStarted | ToolFinished | AttemptSuperseded | Ended
)

_KINDS: dict[type[Payload], str] = {
    StateChanged: "state_changed",
    MemoriesRecalled: "memories_recalled",
    SummaryUsed: "summary_used",
    TextAdded: "text_added",
    ToolStarted: "tool_started",
    ToolFinished: "tool_finished",
    AttemptSuperseded: "attempt_superseded",
    Ended: "ended",
}
_STORED: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(kind) for kind, name in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Numbered:
    """A payload with its place in the run, on its way to the database."""

    sequence: int
    payload: Payload

    def row(self) -> dict[str, object]:
        """Its stored form."""
        return {"sequence": self.sequence, "kind": _KINDS[type(self.payload)], "payload": self.payload}


@dataclass(frozen=True, slots=True)
class RunEvent:
    """An event as it was committed. `run` is set on the last one alone: the run as it ended."""

    run_id: UUID
    sequence: int
    create_time: datetime
    payload: Payload
    run: Run | None = None

    @property
    def is_last(self) -> bool:
        """Whether the run has ended with this event."""
        return isinstance(self.payload, Ended)


def from_stored(kind: str, payload: Any) -> Payload:
    """Reads a stored payload; fails loudly on anything that `Numbered.row` doesn't write."""
    read: Payload = _STORED[kind].validate_python(payload)
    return read


def joined(payloads: Sequence[Payload]) -> list[Payload]:
    """Puts text that follows on text of the same attempt into one payload: fewer rows, the same words."""
    result: list[Payload] = []
    for payload in payloads:
        last = result[-1] if result else None
        if (
            isinstance(payload, TextAdded)
            and isinstance(last, TextAdded)
            and (payload.step, payload.attempt) == (last.step, last.attempt)
        ):
            result[-1] = replace(last, text=last.text + payload.text)
        else:
            result.append(payload)
    return result
