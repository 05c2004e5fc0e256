"""What a tool is given and what it gives back."""

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call, and for whom it is made.

    `key` is the step's: whoever acts must act once for it. `user_text` is the message that the turn answers, and
    `message_sequence` its place in the session (0 when unknown).
    """

    arguments: Mapping[str, Any]
    key: UUID
    session_id: UUID
    agent_id: UUID
    user_id: str
    user_text: str
    message_sequence: int
    configuration: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Whole:
    """A result that is too large for a message, as bytes; `sha256` is their digest, in hexadecimal digits."""

    data: bytes
    media_type: str
    sha256: str


class Ended(enum.Enum):
    """How a call went, as it is counted."""

    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELED = "canceled"  # its run was stopped, or out of time
    REFUSED = "refused"  # never made: its arguments don't fit, it needs a person, or there is no such builtin


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call. `uncertain`: it ran out of time, and whether it took effect isn't known.

    Of a result that is too large `output` is an excerpt, `whole` all of it until it is stored, `blob_id` then where.
    """

    output: Any
    is_error: bool
    nanoseconds: int
    uncertain: bool = False
    whole: Whole | None = None
    blob_id: str = ""


class ToolFailedError(Exception):
    """A tool can't do what it was asked; the message goes back to the model."""


Builtin = Callable[[Invocation], Awaitable[Any]]
