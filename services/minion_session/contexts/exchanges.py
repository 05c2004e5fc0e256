"""Exchanges: messages in the form in which every provider takes them, each with what belongs right after it.

A provider refuses a transcript in which a tool's call has no result right after it, or a result no call right before
it; in which two calls have one id; in which a text is blank; in which an assistant's message holds an image. Ids and
names have to match what the strictest takes: OpenAI 40 characters for an id, Anthropic `[a-zA-Z0-9_-]`, Gemini a name
that doesn't begin with a digit.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import orjson

from minion_session.messages.domain import (
    MediaPart,
    Message,
    Part,
    Role,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
    content_bytes,
    estimate_tokens,
)

# What stands or falls together: a message alone, or one that calls tools with the messages that answer it.
Unit = tuple[Message, ...]

# In the metadata of a message that was made for a context and isn't stored.
SYNTHETIC = "minion_synthetic"
NO_RESULT = "There is no result: the call was broken off, or is still going on."

_ID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_BYTES_PER_TOKEN = 4


@dataclass(slots=True)
class _Call:
    part: ToolCallPart
    shown_id: str = ""
    answer: ToolResultPart | None = None
    answered_in: Message | None = None

    def shown(self) -> ToolCallPart:
        name = _name(self.part.name)
        if (self.shown_id, name) == (self.part.tool_call_id, self.part.name):
            return self.part
        return replace(self.part, tool_call_id=self.shown_id, name=name)

    def shown_answer(self) -> ToolResultPart:
        name = _name(self.part.name)
        if self.answer is None:
            return ToolResultPart(self.shown_id, name, NO_RESULT, is_error=True)
        output = _output(self.answer)
        if (self.shown_id, name) == (self.answer.tool_call_id, self.answer.name) and output is self.answer.output:
            return self.answer
        return replace(self.answer, tool_call_id=self.shown_id, name=name, output=output)


def exchanges(messages: Sequence[Message]) -> list[Unit]:
    """Splits a transcript, which may begin anywhere, into what stands or falls together, oldest first.

    A result is put right after its call, wherever it came; a call that has none is given one that says so, in a message
    of its own. A result whose call isn't there is left out, and so are thinking, blank texts, and messages of which
    nothing is left.
    """
    calls = _pair(messages)
    return [unit for index, message in enumerate(messages) if (unit := _unit(message, calls[index]))]


def _pair(messages: Sequence[Message]) -> list[list[_Call]]:
    """Gives the calls of each message, each with its result; a result answers the last call of its id before it."""
    calls: list[list[_Call]] = [[] for _ in messages]
    unanswered: dict[str, _Call] = {}
    for message, own in zip(messages, calls, strict=True):
        if message.role is not Role.ASSISTANT and message.role is not Role.TOOL:
            continue
        for part in message.parts:
            if isinstance(part, ToolCallPart) and message.role is Role.ASSISTANT:
                call = unanswered[part.tool_call_id] = _Call(part)
                own.append(call)
            elif isinstance(part, ToolResultPart) and message.role is Role.TOOL:
                answered = unanswered.pop(part.tool_call_id, None)
                if answered is not None:
                    answered.answer, answered.answered_in = part, message
    taken: set[str] = set()
    # The newest call of an id keeps it: that one may still be answered by its caller.
    for message, own in zip(reversed(messages), reversed(calls), strict=True):
        if not own:
            continue
        for place, call in reversed(list(enumerate(own))):
            call.shown_id = call.part.tool_call_id
            if call.shown_id in taken or not _ID.fullmatch(call.shown_id):
                given = f"{message.sequence}.{place}.{call.shown_id}"
                call.shown_id = f"call_{hashlib.sha256(given.encode()).hexdigest()[:24]}"
            taken.add(call.shown_id)
    return calls


def _unit(message: Message, calls: list[_Call]) -> Unit:
    if message.role is Role.TOOL:
        return ()
    if len(message.parts) == 1 and isinstance(message.parts[0], TextPart):
        # Most messages are no more than this.
        return (message,) if message.parts[0].text.strip() else ()
    own = iter(calls)
    parts = [shown for part in message.parts if (shown := _shown(part, message.role, own)) is not None]
    if not parts:
        return ()
    return (retold(message, parts), *_answers(message, calls))


def _shown(part: Part, role: Role, calls: Iterator[_Call]) -> Part | None:
    match part:
        case TextPart(text):
            return part if text.strip() else None
        case MediaPart():
            return part if role is Role.USER else TextPart(_media_mark(part))
        case ToolCallPart() if role is Role.ASSISTANT:
            return next(calls).shown()
        case ToolCallPart() | ToolResultPart() | ThinkingPart():
            return None


def _answers(message: Message, calls: list[_Call]) -> Iterator[Message]:
    """Yields the stored messages that answer, each with what is an answer to this one, then one for what is missing."""
    answers: dict[int, tuple[Message, list[Part]]] = {}
    for call in calls:
        if call.answered_in is not None:
            answers.setdefault(call.answered_in.sequence, (call.answered_in, []))[1].append(call.shown_answer())
    for _, (answered_in, parts) in sorted(answers.items()):
        yield retold(answered_in, parts)
    missing: list[Part] = [call.shown_answer() for call in calls if call.answer is None]
    if missing:
        yield Message(
            sequence=0,
            role=Role.TOOL,
            author="",
            parts=tuple(missing),
            token_count=estimate_tokens(sum(content_bytes(part) for part in missing)),
            create_time=message.create_time,
            metadata={SYNTHETIC: True},
        )


def retold(message: Message, parts: Sequence[Part]) -> Message:
    """Gives a message other parts, and the tokens that these take by the measure of its own."""
    if len(parts) == len(message.parts) and all(new is old for new, old in zip(parts, message.parts, strict=True)):
        return message
    before, after = sum(map(content_bytes, message.parts)), sum(map(content_bytes, parts))
    if after >= before:
        tokens = message.token_count + -(-(after - before) // _BYTES_PER_TOKEN)
    else:
        tokens = max(1, -(-message.token_count * after // before))
    return replace(message, parts=tuple(parts), token_count=tokens)


def as_text(output: object) -> str:
    """Writes what a tool returned as a text: texts as they are, all else as JSON."""
    return output if isinstance(output, str) else orjson.dumps(output).decode()


def _output(answer: ToolResultPart) -> object:
    if answer.blob_id is None:
        return answer.output
    excerpt = as_text(answer.output)
    return excerpt if str(answer.blob_id) in excerpt else f"{excerpt}\n[The whole result is the blob {answer.blob_id}.]"


def _media_mark(part: MediaPart) -> str:
    named = f"{part.name}, " if part.name else ""
    place = f"the blob {part.blob_id}" if part.blob_id is not None else part.uri
    return f"[{named}{part.media_type}: {place}]"


def _name(name: str) -> str:
    if _NAME.fullmatch(name):
        return name
    mended = _NOT_IN_NAMES.sub("_", name)
    return (mended if _NAME.match(mended) else f"_{mended}")[:64]
