"""Messages, the turns that append them, and what a model is shown of them."""

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from minion_session.sessions.domain import Session

# What stands or falls together.
Unit = tuple["Message", ...]

# What a provider adds to each message: its role and its frame.
_FRAME_TOKENS = 4
_BYTES_PER_TOKEN = 4


class Role(enum.Enum):
    """Who speaks."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class TextPart:
    """Words."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """An assistant's wish to have a tool called."""

    tool_call_id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResultPart:
    """What a tool answered; `output` is any JSON value."""

    tool_call_id: str
    name: str
    output: Any
    is_error: bool


Part = TextPart | ToolCallPart | ToolResultPart


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to append. `byte_count` is its size on the wire, `token_count` what it takes of a model's context."""

    role: Role
    author: str
    parts: tuple[Part, ...]
    token_count: int
    byte_count: int
    metadata: Mapping[str, Any]


# Nobody changes one, but it isn't frozen: a page makes a thousand, and freezing makes each thrice as dear.
@dataclass(slots=True)
class Message:
    """A stored message; `run_id` is None when a client appended it."""

    sequence: int
    role: Role
    author: str
    parts: tuple[Part, ...]
    token_count: int
    create_time: datetime
    run_id: UUID | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunSource:
    """The step of a run that appends."""

    run_id: UUID
    step_sequence: int


@dataclass(frozen=True, slots=True)
class Append:
    """One batch for one session, stored whole or not at all."""

    session_id: UUID
    messages: tuple[NewMessage, ...]
    expected_sequence: int | None
    source: RunSource | None
    release_hold: bool


@dataclass(frozen=True, slots=True)
class Appended:
    """Where a batch stands."""

    first_sequence: int
    last_sequence: int
    create_time: datetime


@dataclass(frozen=True, slots=True)
class MessageQuery:
    """Which messages are listed: after a sequence, or before it when descending; 0 starts at the end."""

    session_id: UUID
    after_sequence: int
    descending: bool


@dataclass(frozen=True, slots=True)
class MessagePage:
    """One page of messages; the token is empty on the last."""

    messages: tuple[Message, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn to begin: the user's message, the run that holds the session, and the context that it wants."""

    session_id: UUID
    message: NewMessage
    source: RunSource
    hold: timedelta
    token_budget: int
    max_messages: int


@dataclass(frozen=True, slots=True)
class BegunTurn:
    """What the model is to be shown; `truncated` when older messages were left out."""

    session: Session
    message: Message
    context: tuple[Message, ...]
    context_token_count: int
    truncated: bool


def estimate_tokens(content_bytes: int) -> int:
    """Estimates what a message takes: a token for four bytes of UTF-8 (texts as they are, calls and results as JSON),
    rounded up, and four for its frame.
    """
    return -(-content_bytes // _BYTES_PER_TOKEN) + _FRAME_TOKENS


def context(messages: Sequence[Message], *, token_budget: int, max_messages: int) -> tuple[Message, ...]:
    """Cuts the context that a model is shown from the end of a transcript, oldest message first in both.

    Models refuse a transcript in which a tool's call has no result right after it, or a result no call right before it.
    So an assistant's message with calls and the tool messages that follow it stand or fall together, and what is left
    over of broken exchanges (a call that was never answered, a result that answers none) is not shown.

    The newest units are taken as long as they fit whole, up to `token_budget` tokens and `max_messages` messages; the
    first that doesn't fit ends the context, so that it has no hole. `messages` may begin amid an exchange.
    """
    taken: list[Unit] = []
    tokens = count = 0
    for unit in reversed(list(_units(messages))):
        tokens += sum(message.token_count for message in unit)
        count += len(unit)
        if tokens > token_budget or count > max_messages:
            break
        taken.append(unit)
    return tuple(message for unit in reversed(taken) for message in unit)


def _units(messages: Iterable[Message]) -> Iterator[Unit]:
    """Splits a transcript into what stands or falls together, without the leftovers of broken exchanges."""
    caller: Message | None = None
    answers: list[Message] = []
    for message in messages:
        if caller is not None and message.role is Role.TOOL:
            answers.append(message)
            continue
        if caller is not None:
            yield from _exchange(caller, answers)
            caller, answers = None, []
        if message.role is Role.ASSISTANT and any(isinstance(part, ToolCallPart) for part in message.parts):
            caller = message
        elif message.role is not Role.TOOL:
            yield (message,)
    if caller is not None:
        yield from _exchange(caller, answers)


def _exchange(caller: Message, answers: Sequence[Message]) -> Iterator[Unit]:
    """Keeps of an exchange the calls that were answered with their first answers, and whatever else was said."""
    called = {part.tool_call_id for part in caller.parts if isinstance(part, ToolCallPart)}
    answered: set[str] = set()
    kept_answers: list[Message] = []
    for message in answers:
        kept: list[ToolResultPart] = []
        for part in message.parts:
            if isinstance(part, ToolResultPart) and part.tool_call_id in called - answered:
                answered.add(part.tool_call_id)
                kept.append(part)
        if kept:
            kept_answers.append(_with_parts(message, kept))
    open_calls = set(answered)
    kept_parts: list[Part] = []
    for part in caller.parts:
        if isinstance(part, ToolCallPart):
            if part.tool_call_id not in open_calls:
                continue
            open_calls.remove(part.tool_call_id)
        kept_parts.append(part)
    if kept_parts:
        yield (_with_parts(caller, kept_parts), *kept_answers)


def _with_parts(message: Message, parts: Sequence[Part]) -> Message:
    # Stored counts stay: what is cut makes them an upper bound.
    return message if len(parts) == len(message.parts) else replace(message, parts=tuple(parts))
