"""Requests that the tests make."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from minion.session.v1 import message_pb2 as messages
from minion.session.v1 import session_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_grpc import wire
from uuid_utils.compat import uuid7

from tests.minion_session.stage import Stub

USER = messages.MESSAGE_ROLE_USER
ASSISTANT = messages.MESSAGE_ROLE_ASSISTANT
SYSTEM = messages.MESSAGE_ROLE_SYSTEM
TOOL = messages.MESSAGE_ROLE_TOOL


def new_id() -> str:
    """Makes an id."""
    return str(uuid7())


def struct(**values: Any) -> Struct:
    """Makes a Struct."""
    return wire.to_struct(values)


def text(words: str, role: messages.MessageRole.ValueType = USER, **fields: Any) -> messages.Message:
    """Makes a message of one text."""
    return messages.Message(role=role, parts=[messages.Part(text=words)], **fields)


def call(*call_ids: str, words: str = "", name: str = "clock") -> messages.Message:
    """Makes an assistant's message that calls tools."""
    calls = [
        messages.Part(tool_call=messages.ToolCall(tool_call_id=call_id, name=name, arguments=struct(zone="UTC")))
        for call_id in call_ids
    ]
    return messages.Message(role=ASSISTANT, parts=[*([messages.Part(text=words)] if words else []), *calls])


def result(call_id: str, output: Any = "noon", name: str = "clock") -> messages.Message:
    """Makes a tool's message with one result."""
    answer = messages.ToolResult(tool_call_id=call_id, name=name, output=wire.to_value(output))
    return messages.Message(role=TOOL, parts=[messages.Part(tool_result=answer)])


async def opened(session: Stub, **fields: Any) -> session_pb2.Session:
    """Opens a session."""
    request = pb.CreateSessionRequest(**{"agent_id": new_id(), "user_id": "ada", **fields})
    return (await session.CreateSession(request)).session


async def open_session(session: Stub, **fields: Any) -> str:
    """Opens a session and gives its id."""
    return (await opened(session, **fields)).session_id


def append(session_id: str, *batch: str | messages.Message, **fields: Any) -> pb.AppendMessagesRequest:
    """Makes an append of texts and messages."""
    made = [text(one) if isinstance(one, str) else one for one in batch]
    return pb.AppendMessagesRequest(session_id=session_id, messages=made, **fields)


def source(run_id: str | None = None, step: int = 1) -> messages.RunSource:
    """Names a run's step."""
    return messages.RunSource(run_id=run_id or new_id(), step_sequence=step)


def turn(session_id: str, words: str = "hello", /, **fields: Any) -> pb.BeginTurnRequest:
    """Makes a turn to begin."""
    return pb.BeginTurnRequest(**{"session_id": session_id, "message": text(words), "source": source(), **fields})


def seconds(count: float) -> Duration:
    """Makes a span of time."""
    return Duration(seconds=int(count), nanos=int(count % 1 * 1e9))


async def listed(session: Stub, session_id: str, **fields: Any) -> Sequence[messages.Message]:
    """Lists one page of messages."""
    response = await session.ListMessages(pb.ListMessagesRequest(session_id=session_id, **fields))
    return response.messages


def words(found: Sequence[messages.Message]) -> list[str]:
    """Gives the first text of each message."""
    return [message.parts[0].text for message in found]
