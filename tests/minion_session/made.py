"""Requests that the tests make."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from minion.session.v1 import blob_pb2, blob_service_pb2, session_pb2
from minion.session.v1 import message_pb2 as messages
from minion.session.v1 import session_service_pb2 as pb
from minion_grpc import wire
from uuid_utils.compat import uuid7

from tests.minion_session.stage import Blobs, Stub

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


def summary(session_id: str, last: int, words: str = "so far", /, **fields: Any) -> pb.SaveSummaryRequest:
    """Makes a summary to save."""
    return pb.SaveSummaryRequest(session_id=session_id, last_sequence=last, text=words, **fields)


async def context_of(session: Stub, session_id: str, **fields: Any) -> pb.GetContextResponse:
    """Gets a session's context."""
    return await session.GetContext(pb.GetContextRequest(session_id=session_id, **fields))


async def fork(session: Stub, session_id: str, at: int = 0, **fields: Any) -> session_pb2.Session:
    """Forks a session."""
    request = pb.ForkSessionRequest(session_id=session_id, at_sequence=at, **fields)
    return (await session.ForkSession(request)).session


def header(session_id: str, /, **fields: Any) -> blob_service_pb2.PutBlobRequest:
    """Makes the header of a blob."""
    made = blob_service_pb2.BlobHeader(**{"session_id": session_id, "media_type": "text/plain", **fields})
    return blob_service_pb2.PutBlobRequest(header=made)


def chunked(data: bytes, size: int = 1024 * 1024) -> list[blob_service_pb2.PutBlobRequest]:
    """Cuts bytes into chunks."""
    return [blob_service_pb2.PutBlobRequest(chunk=data[at : at + size]) for at in range(0, len(data), size)]


async def sent(requests: Sequence[blob_service_pb2.PutBlobRequest]) -> AsyncIterator[blob_service_pb2.PutBlobRequest]:
    """Sends pieces of a blob one after the other."""
    for request in requests:
        yield request


async def put(blobs: Blobs, session_id: str, data: bytes = b"bytes", /, **fields: Any) -> blob_pb2.Blob:
    """Puts a blob."""
    return (await blobs.PutBlob(sent([header(session_id, **fields), *chunked(data)]))).blob


async def got(blobs: Blobs, blob_id: str, **fields: Any) -> tuple[blob_pb2.Blob, list[bytes]]:
    """Gets a blob, or a range of it: what it is, and its chunks."""
    call = blobs.GetBlob(blob_service_pb2.GetBlobRequest(blob_id=blob_id, **fields))
    first, *rest = [response async for response in call]
    return first.blob, [response.chunk for response in rest]
