"""Between the contract's messages and the domain's."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
from minion.session.v1 import message_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key

from minion_session import requests
from minion_session.messages.domain import (
    Append,
    Appended,
    BegunTurn,
    Message,
    MessagePage,
    MessageQuery,
    NewMessage,
    Part,
    Role,
    RunSource,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Turn,
    estimate_tokens,
)
from minion_session.sessions import convert as sessions

_MOST_PARTS_BYTES = 256 * 1024
_MOST_BATCH_BYTES = 1024 * 1024
_SHORTEST_HOLD, _LONGEST_HOLD, _DEFAULT_HOLD = timedelta(seconds=1), timedelta(hours=24), timedelta(minutes=10)
_DEFAULT_BUDGET, _DEFAULT_MESSAGES = 8_000, 50

_TO_ROLE = {
    Role.USER: message_pb2.MESSAGE_ROLE_USER,
    Role.ASSISTANT: message_pb2.MESSAGE_ROLE_ASSISTANT,
    Role.SYSTEM: message_pb2.MESSAGE_ROLE_SYSTEM,
    Role.TOOL: message_pb2.MESSAGE_ROLE_TOOL,
}
_FROM_ROLE = {number: role for role, number in _TO_ROLE.items()}
_SPOKEN_BY = {
    "text": frozenset({Role.USER, Role.SYSTEM, Role.ASSISTANT}),
    "tool_call": frozenset({Role.ASSISTANT}),
    "tool_result": frozenset({Role.TOOL}),
}


@dataclass(frozen=True, slots=True)
class ListRequest:
    """Which page of which list."""

    query: MessageQuery
    page_size: int
    page_token: str


def append_from_proto(request: pb.AppendMessagesRequest) -> tuple[Append, Key | None]:
    """Reads a batch."""
    violations = Violations()
    violations.count("messages", request.messages, minimum=1, maximum=100)
    size = sum(message.ByteSize() for message in request.messages)
    if size > _MOST_BATCH_BYTES:
        violations.stop("messages", f"must have at most {_MOST_BATCH_BYTES} bytes together, have {size}")
    source = _source_from_proto(request.source, violations) if request.HasField("source") else None
    if request.release_hold and source is None:
        violations.add("release_hold", "needs a source")
    append = Append(
        session_id=violations.identifier("session_id", request.session_id),
        messages=tuple(
            _message_from_proto(message, f"messages[{index}]", violations)
            for index, message in enumerate(request.messages)
        ),
        expected_sequence=request.expected_sequence if request.HasField("expected_sequence") else None,
        source=source,
        release_hold=request.release_hold,
    )
    key = requests.key(violations, request)
    violations.raise_if_any()
    return append, key


def appended_to_proto(appended: Appended) -> pb.AppendMessagesResponse:
    """Writes where a batch stands."""
    return pb.AppendMessagesResponse(
        first_sequence=appended.first_sequence,
        last_sequence=appended.last_sequence,
        create_time=wire.to_timestamp(appended.create_time),
    )


def list_from_proto(request: pb.ListMessagesRequest) -> ListRequest:
    """Reads which messages to list."""
    violations = Violations()
    if request.after_sequence < 0:
        violations.add("after_sequence", f"must not be negative, is {request.after_sequence}")
    session_id = violations.identifier("session_id", request.session_id)
    size = requests.page_size(violations, request.page_size, default=100, largest=1_000)
    violations.raise_if_any()
    return ListRequest(MessageQuery(session_id, request.after_sequence, request.descending), size, request.page_token)


def page_to_proto(page: MessagePage) -> pb.ListMessagesResponse:
    """Writes one page."""
    response = pb.ListMessagesResponse(next_page_token=page.next_page_token)
    for message in page.messages:
        _write(response.messages.add(), message)
    return response


def watch_from_proto(request: pb.WatchMessagesRequest) -> tuple[UUID, int]:
    """Reads which session to watch, and after which sequence."""
    violations = Violations()
    session_id = violations.identifier("session_id", request.session_id)
    if request.after_sequence < 0:
        violations.add("after_sequence", f"must not be negative, is {request.after_sequence}")
    violations.raise_if_any()
    return session_id, request.after_sequence


def watched_to_proto(messages: tuple[Message, ...]) -> list[pb.WatchMessagesResponse]:
    """Writes messages for a watch."""
    return [pb.WatchMessagesResponse(message=to_proto(message)) for message in messages]


def turn_from_proto(request: pb.BeginTurnRequest) -> Turn:
    """Reads a turn to begin."""
    violations = Violations()
    if not request.HasField("message"):
        violations.add("message", "is required")
    elif request.message.role != message_pb2.MESSAGE_ROLE_USER:
        violations.add("message.role", "must be USER")
    if not request.HasField("source"):
        violations.add("source", "is required")
    hold = wire.from_duration(request.hold, "hold", violations) if request.HasField("hold") else _DEFAULT_HOLD
    if not _SHORTEST_HOLD <= hold <= _LONGEST_HOLD:
        violations.add("hold", "must be 1 s to 24 h")
    budget = request.token_budget or _DEFAULT_BUDGET
    violations.between("token_budget", budget, minimum=256, maximum=1_000_000)
    most = request.max_messages or _DEFAULT_MESSAGES
    violations.between("max_messages", most, minimum=1, maximum=1_000)
    turn = Turn(
        session_id=violations.identifier("session_id", request.session_id),
        message=_message_from_proto(request.message, "message", violations),
        source=_source_from_proto(request.source, violations),
        hold=hold,
        token_budget=budget,
        max_messages=most,
    )
    violations.raise_if_any()
    return turn


def begun_to_proto(begun: BegunTurn) -> pb.BeginTurnResponse:
    """Writes what the model is to be shown."""
    return pb.BeginTurnResponse(
        session=sessions.to_proto(begun.session),
        message=to_proto(begun.message),
        context=[to_proto(message) for message in begun.context],
        context_token_count=begun.context_token_count,
        truncated=begun.truncated,
    )


def end_from_proto(request: pb.EndTurnRequest) -> tuple[UUID, UUID]:
    """Reads which run lets go of which session."""
    violations = Violations()
    session_id = violations.identifier("session_id", request.session_id)
    run_id = violations.identifier("run_id", request.run_id)
    violations.raise_if_any()
    return session_id, run_id


def to_proto(message: Message) -> message_pb2.Message:
    """Writes a message."""
    written = message_pb2.Message()
    _write(written, message)
    return written


def _write(into: message_pb2.Message, message: Message) -> None:
    """Writes a message where it is to stand: a page is half converting, and copies would make that thrice as much."""
    into.sequence = message.sequence
    into.role = _TO_ROLE[message.role]
    into.author = message.author
    for part in message.parts:
        if isinstance(part, TextPart):
            into.parts.add(text=part.text)
        else:
            into.parts.append(_part_to_proto(part))
    into.token_count = message.token_count
    if message.run_id is not None:
        into.run_id = str(message.run_id)
    if message.metadata:
        into.metadata.CopyFrom(wire.to_struct(message.metadata))
    wire.set_timestamp(into.create_time, message.create_time)


def json_bytes(messages: Iterable[Message]) -> int:
    """Measures the JSON values of messages, which are what converting them costs."""
    return wire.json_bytes(value for message in messages for value in _json_values(message))


def _json_values(message: Message) -> Iterator[Any]:
    yield message.metadata
    for part in message.parts:
        match part:
            case ToolCallPart():
                yield part.arguments
            case ToolResultPart():
                yield part.output


def _part_to_proto(part: Part) -> message_pb2.Part:
    match part:
        case TextPart(text):
            return message_pb2.Part(text=text)
        case ToolCallPart(tool_call_id, name, arguments):
            call = message_pb2.ToolCall(tool_call_id=tool_call_id, name=name, arguments=wire.to_struct(arguments))
            return message_pb2.Part(tool_call=call)
        case ToolResultPart(tool_call_id, name, output, is_error):
            result = message_pb2.ToolResult(
                tool_call_id=tool_call_id, name=name, output=wire.to_value(output), is_error=is_error
            )
            return message_pb2.Part(tool_result=result)


def _source_from_proto(source: message_pb2.RunSource, violations: Violations) -> RunSource:
    if source.step_sequence < 1:
        violations.add("source.step_sequence", f"must be at least 1, is {source.step_sequence}")
    return RunSource(violations.identifier("source.run_id", source.run_id), source.step_sequence)


def _message_from_proto(message: message_pb2.Message, field: str, violations: Violations) -> NewMessage:
    role = _FROM_ROLE.get(message.role)
    if role is None:
        violations.add(f"{field}.role", "is required" if not message.role else f"is no role: {message.role}")
    violations.count(f"{field}.parts", message.parts, minimum=1, maximum=64)
    size = sum(part.ByteSize() for part in message.parts)
    if size > _MOST_PARTS_BYTES:
        violations.stop(f"{field}.parts", f"must have at most {_MOST_PARTS_BYTES} bytes together, have {size}")
    violations.between(f"{field}.token_count", message.token_count, minimum=0, maximum=10_000_000)
    parts: list[Part] = []
    content_bytes = 0
    for index, given in enumerate(message.parts):
        read = _part_from_proto(given, f"{field}.parts[{index}]", role, violations)
        if read is not None:
            parts.append(read[0])
            content_bytes += read[1]
    calls = [part.tool_call_id for part in parts if not isinstance(part, TextPart)]
    if len(set(calls)) < len(calls):
        violations.add(f"{field}.parts", "must name each tool_call_id once")
    return NewMessage(
        role=role or Role.USER,
        author=violations.length(f"{field}.author", message.author, maximum=200),
        parts=tuple(parts),
        token_count=message.token_count or estimate_tokens(content_bytes),
        byte_count=message.ByteSize(),
        metadata=requests.json_object(violations, f"{field}.metadata", message.metadata),
    )


def _part_from_proto(
    part: message_pb2.Part, field: str, role: Role | None, violations: Violations
) -> tuple[Part, int] | None:
    """Reads a part and how many bytes it has as text or JSON."""
    kind = part.WhichOneof("content")
    if kind is None:
        violations.add(field, "needs one of text, tool_call, tool_result")
        return None
    if role is not None and role not in _SPOKEN_BY[kind]:
        violations.add(f"{field}.{kind}", f"doesn't belong in a message of the role {role.name}")
    if kind == "text":
        # No limit of its own but that of all parts.
        text = violations.length(f"{field}.text", part.text, maximum=_MOST_PARTS_BYTES)
        return TextPart(text), len(text.encode())
    named = part.tool_call if kind == "tool_call" else part.tool_result
    field = f"{field}.{kind}"
    tool_call_id = violations.length(f"{field}.tool_call_id", named.tool_call_id, minimum=1, maximum=128)
    name = violations.length(f"{field}.name", named.name, minimum=1, maximum=64)
    if kind == "tool_call":
        arguments = wire.from_struct(part.tool_call.arguments, f"{field}.arguments", violations)
        return ToolCallPart(tool_call_id, name, arguments), len(orjson.dumps([name, arguments]))
    output = wire.from_value(part.tool_result.output, f"{field}.output", violations)
    return ToolResultPart(tool_call_id, name, output, part.tool_result.is_error), len(orjson.dumps([name, output]))
