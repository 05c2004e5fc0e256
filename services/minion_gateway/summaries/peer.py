"""The session service, as summaries are made from it and saved in it."""

from collections.abc import Iterator
from uuid import UUID

import grpc
from minion.session.v1 import message_pb2, session_service_pb2, session_service_pb2_grpc
from minion_errors import Violations
from minion_grpc import peer_call
from minion_grpc.wire import from_struct, from_value, off_loop

from minion_gateway.runs.domain import ToolResult
from minion_gateway.runs.prompt import stable_json, tool_text
from minion_gateway.summaries.domain import LONGEST_ENTRY, NOTHING, Covered, Entry, Job, SummaryResult, Voice, shortened

_CALL_SECONDS = 10.0
_MESSAGES_A_PAGE = 200
_SESSION = "/minion.session.v1.SessionService"
# What a summary needs besides what a turn does. SaveSummary carries the step that it comes from.
RETRYABLE = (f"{_SESSION}/ListMessages", f"{_SESSION}/ListSummaries", f"{_SESSION}/SaveSummary")
_VOICES = {
    message_pb2.MESSAGE_ROLE_USER: Voice.USER,
    message_pb2.MESSAGE_ROLE_ASSISTANT: Voice.ASSISTANT,
    message_pb2.MESSAGE_ROLE_SYSTEM: Voice.SYSTEM,
    message_pb2.MESSAGE_ROLE_TOOL: Voice.TOOL,
}


class SummaryPeer:
    """Calls act for the caller in hand, as `minion_auth` knows it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: session_service_pb2_grpc.SessionServiceAsyncStub = session_service_pb2_grpc.SessionServiceStub(
            channel
        )

    async def last_sequence(self, session_id: UUID) -> int:
        """Returns the place of the session's last message. Raises NotFound (SESSION_NOT_FOUND)."""
        request = session_service_pb2.GetSessionRequest(session_id=str(session_id))
        with peer_call("session"):
            answer = await self._stub.GetSession(request, timeout=_CALL_SECONDS)
        return int(answer.session.last_sequence)

    async def newest(self, session_id: UUID) -> Covered:
        """Returns the session's newest summary, or what stands for none."""
        request = session_service_pb2.ListSummariesRequest(session_id=str(session_id), page_size=1)
        with peer_call("session"):
            answer = await self._stub.ListSummaries(request, timeout=_CALL_SECONDS)
        if not answer.summaries:
            return NOTHING
        found = answer.summaries[0]
        return Covered(found.first_sequence, found.last_sequence, found.text)

    async def messages(self, session_id: UUID, after: int) -> list[Entry]:
        """Returns a page of messages after a place, oldest first."""
        request = session_service_pb2.ListMessagesRequest(
            session_id=str(session_id), after_sequence=after, page_size=_MESSAGES_A_PAGE
        )
        with peer_call("session"):
            answer = await self._stub.ListMessages(request, timeout=_CALL_SECONDS)
        return await off_loop(_entries, answer, answer.ByteSize())

    async def save(self, job: Job, result: SummaryResult) -> None:
        """Saves a summary, once for ever for its step."""
        request = session_service_pb2.SaveSummaryRequest(
            session_id=str(job.session_id),
            first_sequence=result.first_sequence,
            last_sequence=result.last_sequence,
            text=result.text,
            token_count=0 if result.estimated else max(0, result.usage.output_tokens - result.usage.reasoning_tokens),
            model=result.model,
            source=message_pb2.RunSource(run_id=str(job.run_id), step_sequence=job.step),
        )
        with peer_call("session"):
            await self._stub.SaveSummary(request, timeout=_CALL_SECONDS)


def _entries(answer: session_service_pb2.ListMessagesResponse) -> list[Entry]:
    return [_entry(message) for message in answer.messages]


def _entry(message: message_pb2.Message) -> Entry:
    parts = [part for part in message.parts if not part.HasField("thinking")]
    return Entry(
        sequence=message.sequence,
        voice=_VOICES[message.role],
        text=shortened("\n".join(_lines(message, parts)), LONGEST_ENTRY),
        tokens=message.token_count,
        calls=frozenset(part.tool_call.tool_call_id for part in parts if part.HasField("tool_call")),
        results=frozenset(part.tool_result.tool_call_id for part in parts if part.HasField("tool_result")),
    )


def _lines(message: message_pb2.Message, parts: list[message_pb2.Part]) -> Iterator[str]:
    who = _VOICES[message.role].value
    for part in parts:
        match part.WhichOneof("content"):
            case "text":
                yield f"{who}: {part.text}"
            case "tool_call":
                arguments = stable_json(from_struct(part.tool_call.arguments, "", Violations()))
                yield f"{who} calls {part.tool_call.name}: {arguments}"
            case "tool_result":
                result = part.tool_result
                output = tool_text(ToolResult(from_value(result.output, "", Violations()), result.is_error, 0))
                yield f"{who} {result.name}: {output}"
            case "media":
                yield f"{who} shows {part.media.media_type} {part.media.name}".rstrip()
            case _:
                pass
