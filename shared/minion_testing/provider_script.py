"""What the fake provider is told to do: replies, faults, and whom they are for."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. Without text and tool calls it echoes the last user message as `echo: …`.

    `tool_calls` are (name, JSON arguments). Token counts that are None are reckoned from the texts;
    `counts_tokens=False` leaves usage out of the answer, as some servers do. `chunks` is the number of pieces in a
    stream, one a word when None.
    """

    text: str | None = None
    tool_calls: tuple[tuple[str, str], ...] = ()
    finish_reason: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    counts_tokens: bool = True
    first_byte_seconds: float = 0.0
    chunk_seconds: float = 0.0
    chunks: int | None = None

    def filled(self, asked_text: str, body: Mapping[str, Any]) -> "Reply":
        """Returns the reply to one request, with nothing left open."""
        text = self.text if self.text is not None else "" if self.tool_calls else f"echo: {asked_text}"
        written = len(text) + sum(len(arguments) for _, arguments in self.tool_calls)
        read = sum(len(message.get("content") or "") for message in body.get("messages", ()))
        return replace(
            self,
            text=text,
            finish_reason=self.finish_reason or ("tool_calls" if self.tool_calls else "stop"),
            input_tokens=max(1, read // 4) if self.input_tokens is None else self.input_tokens,
            output_tokens=max(1, written // 4) if self.output_tokens is None else self.output_tokens,
        )

    def pieces(self) -> list[str]:
        """The text as a stream brings it; joined they are the text."""
        text = self.text or ""
        if not text:
            return []
        if self.chunks is None:
            words = text.split(" ")
            return [word + " " for word in words[:-1]] + ([words[-1]] if words[-1] else [])
        if self.chunks >= len(text):
            return list(text) + [" "] * (self.chunks - len(text))
        bounds = [position * len(text) // self.chunks for position in range(self.chunks + 1)]
        return [text[start:end] for start, end in pairwise(bounds)]


class FaultKind(enum.Enum):
    """The ways to fail. Those from CUT on come in the middle of a stream, after `after_chunks` events."""

    RATE_LIMITED = "rate_limited"  # 429, with Retry-After when `seconds` is set
    QUOTA_EXHAUSTED = "quota_exhausted"  # 429 that no waiting mends
    SERVER_ERROR = "server_error"  # `status`, 500 by default
    KEY_REFUSED = "key_refused"  # 401
    CONTEXT_TOO_LONG = "context_too_long"  # 400
    MODEL_UNKNOWN = "model_unknown"  # 404
    SCHEMA_REFUSED = "schema_refused"  # 400, as by a model that knows no response_format
    REDIRECTED = "redirected"  # 307 to itself
    STALL = "stall"  # no byte for `seconds`, or until released, or until the client goes; then the default reply
    CUT = "cut"  # the connection is closed
    MALFORMED = "malformed"  # an event that is not JSON
    STALL_MIDWAY = "stall_midway"  # no more bytes until released
    ERROR_MIDWAY = "error_midway"  # an error event in a stream that began well
    UNFINISHED = "unfinished"  # a clean end with no finish reason


@dataclass(frozen=True, slots=True)
class Fault:
    """One failure."""

    kind: FaultKind
    seconds: float = 0.0
    status: int = 0
    after_chunks: int = 2


@dataclass(frozen=True, slots=True)
class Script:
    """Gives `action` to the next `times` requests whose last user message contains `match`; None is for ever.

    `after_tools` True asks that the request end in a tool's result, False that it doesn't.
    """

    action: Reply | Fault
    match: str = ""
    times: int | None = 1
    after_tools: bool | None = None

    def fits(self, text: str, *, after_tools: bool) -> bool:
        """Whether it is for a request with this last user message."""
        return self.match in text and self.after_tools in {None, after_tools}

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> "Script":
        """Reads `{"reply": {…}}` or `{"fault": {"kind": "cut", …}}`, with `match` and the like beside it."""
        action: Reply | Fault
        if "fault" in item:
            action = Fault(**{**item["fault"], "kind": FaultKind(item["fault"]["kind"])})
        else:
            reply = dict(item["reply"])
            calls = tuple(
                (name, arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode())
                for name, arguments in reply.pop("tool_calls", ())
            )
            action = Reply(tool_calls=calls, **reply)
        return cls(action, match=item.get("match", ""), times=item.get("times", 1), after_tools=item.get("after_tools"))
