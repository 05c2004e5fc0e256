"""Between the contract's messages and the domain's."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from minion.session.v1 import message_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key

from minion_session import requests
from minion_session.messages import parts
from minion_session.messages.domain import (
    Append,
    Appended,
    Message,
    MessagePage,
    MessageQuery,
    NewMessage,
    Role,
    RunSource,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Turn,
    content_bytes,
    estimate_tokens,
)

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
    source = source_from_proto(request.source, violations) if request.HasField("source") else None
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
    add = response.messages.add
    for message in page.messages:
        _write(add(), message)
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
    budget, most = limits_from_proto(request, violations)
    turn = Turn(
        session_id=violations.identifier("session_id", request.session_id),
        message=_message_from_proto(request.message, "message", violations),
        source=source_from_proto(request.source, violations),
        hold=hold,
        token_budget=budget,
        max_messages=most,
    )
    violations.raise_if_any()
    return turn


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
            into.parts.add().text = part.text
        else:
            into.parts.append(parts.to_proto(part))
    into.token_count = message.token_count
    if message.run_id is not None:
        into.run_id = str(message.run_id)
    if message.metadata:
        into.metadata.CopyFrom(wire.to_struct(message.metadata))
    wire.set_microseconds(into.create_time, message.create_time)


def json_bytes(messages: Iterable[Message]) -> int:
    """Measures the JSON values of messages, which are what converting them costs."""
    return wire.json_bytes(_json_values(messages))


def _json_values(messages: Iterable[Message]) -> Iterator[Any]:
    for message in messages:
        if message.metadata:
            yield message.metadata
        for part in message.parts:
            # Most are text, which costs nothing: not even to be asked.
            if not isinstance(part, TextPart):
                yield parts.json_value(part)


def limits_from_proto(request: pb.BeginTurnRequest | pb.GetContextRequest, violations: Violations) -> tuple[int, int]:
    """Reads what a context may take: tokens and messages."""
    budget = request.token_budget or _DEFAULT_BUDGET
    violations.between("token_budget", budget, minimum=256, maximum=1_000_000)
    most = request.max_messages or _DEFAULT_MESSAGES
    violations.between("max_messages", most, minimum=1, maximum=1_000)
    return budget, most


def source_from_proto(source: message_pb2.RunSource, violations: Violations) -> RunSource:
    """Reads which step of which run appends."""
    if source.step_sequence < 1:
        violations.add("source.step_sequence", f"must be at least 1, is {source.step_sequence}")
    return RunSource(violations.identifier("source.run_id", source.run_id), source.step_sequence)


def _message_from_proto(message: message_pb2.Message, field: str, violations: Violations) -> NewMessage:
    role = _FROM_ROLE.get(message.role)
    if role is None:
        violations.add(f"{field}.role", "is required" if not message.role else f"is no role: {message.role}")
    violations.count(f"{field}.parts", message.parts, minimum=1, maximum=64)
    size = sum(part.ByteSize() for part in message.parts)
    if size > parts.MOST_BYTES:
        violations.stop(f"{field}.parts", f"must have at most {parts.MOST_BYTES} bytes together, have {size}")
    violations.between(f"{field}.token_count", message.token_count, minimum=0, maximum=10_000_000)
    read = [
        part
        for index, given in enumerate(message.parts)
        if (part := parts.from_proto(given, f"{field}.parts[{index}]", role, violations)) is not None
    ]
    calls = [part.tool_call_id for part in read if isinstance(part, ToolCallPart | ToolResultPart)]
    if len(set(calls)) < len(calls):
        violations.add(f"{field}.parts", "must name each tool_call_id once")
    metadata = requests.json_object(violations, f"{field}.metadata", message.metadata)
    return NewMessage(
        role=role or Role.USER,
        author=violations.length(f"{field}.author", message.author, maximum=200),
        parts=tuple(read),
        token_count=message.token_count or estimate_tokens(sum(content_bytes(part) for part in read)),
        byte_count=requests.reply_bytes(message, metadata, *map(parts.json_value, read)),
        metadata=metadata,
    )
