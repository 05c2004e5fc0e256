"""Messages, and the turns that append them."""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

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
    """What a tool answered; `output` is any JSON value, an excerpt where `blob_id` says where the whole is."""

    tool_call_id: str
    name: str
    output: Any
    is_error: bool
    blob_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class MediaPart:
    """An image or a file: a blob of the session, or, where that is None, at an address."""

    media_type: str
    name: str
    blob_id: UUID | None
    uri: str = ""


@dataclass(frozen=True, slots=True)
class ThinkingPart:
    """What a model thought on the way; the signature is its provider's."""

    text: str
    signature: str


Part = TextPart | ToolCallPart | ToolResultPart | MediaPart | ThinkingPart


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
    """A stored message; `run_id` is None when a client appended it.

    `create_time` counts microseconds since the epoch: nobody reckons with it, and a datetime is dear to make.
    """

    sequence: int
    role: Role
    author: str
    parts: tuple[Part, ...]
    token_count: int
    create_time: int
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


def estimate_tokens(content_bytes: int) -> int:
    """Estimates what a message takes whose parts have so many bytes: a token for four, rounded up, and four for its
    frame.
    """
    return -(-content_bytes // _BYTES_PER_TOKEN) + _FRAME_TOKENS


def content_bytes(part: Part) -> int:
    """Measures a part: texts as they are, calls, results and media as JSON; thinking takes nothing, since no context
    shows it.
    """
    match part:
        case TextPart(text):
            return len(text.encode())
        case ToolCallPart(_, name, arguments):
            return len(orjson.dumps([name, arguments]))
        case ToolResultPart(_, name, output, _, _):
            return len(orjson.dumps([name, output]))
        case MediaPart(media_type, name, blob_id, uri):
            return len(orjson.dumps([media_type, name, str(blob_id) if blob_id else uri]))
        case ThinkingPart():
            return 0


def blobs_of(messages: Iterable[NewMessage]) -> list[UUID]:
    """Lists the blobs that messages refer to."""
    return [
        part.blob_id
        for message in messages
        for part in message.parts
        if isinstance(part, MediaPart | ToolResultPart) and part.blob_id is not None
    ]
