"""Whom extraction asks: the session service, the registry and the gateway's models; as this service, for one tenant."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any
from uuid import UUID

import grpc
import orjson
from google.protobuf.json_format import MessageToDict
from minion.gateway.v1 import inference_pb2, inference_service_pb2, inference_service_pb2_grpc
from minion.registry.v1 import agent_service_pb2, agent_service_pb2_grpc
from minion.session.v1 import message_pb2, session_pb2, session_service_pb2, session_service_pb2_grpc
from minion_errors import NotFound, Unavailable
from minion_grpc import peer_call
from minion_grpc.wire import to_struct

from minion_memory.extraction.domain import Policy, Role, Session, SourceMessage

SESSION_RETRYABLE = (
    "/minion.session.v1.SessionService/GetSession",
    "/minion.session.v1.SessionService/ListMessages",
    "/minion.session.v1.SessionService/ListSessions",
)
REGISTRY_RETRYABLE = ("/minion.registry.v1.AgentService/GetAgent",)

_CALL_SECONDS = 10.0
_PAGE = 500
# A job reads as many messages as it may, and of each as much as a memory can hold.
_MOST_TEXT = 65_536
# What a model may write for one question.
_OUTPUT_TOKENS = 16_000
_ROLES = {
    message_pb2.MESSAGE_ROLE_USER: Role.USER,
    message_pb2.MESSAGE_ROLE_ASSISTANT: Role.ASSISTANT,
    message_pb2.MESSAGE_ROLE_SYSTEM: Role.SYSTEM,
    message_pb2.MESSAGE_ROLE_TOOL: Role.TOOL,
}
_DEFAULT_AFTER = 40


@dataclass(frozen=True, slots=True)
class SessionChange:
    """One change of the feed that concerns us; without a session it only says how far the feed is."""

    cursor: str
    tenant_id: UUID | None = None
    session_id: UUID | None = None
    is_gone: bool = False


class Sessions:
    """The session service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: session_service_pb2_grpc.SessionServiceAsyncStub = session_service_pb2_grpc.SessionServiceStub(
            channel
        )

    async def get(self, session_id: UUID) -> Session:
        """Gives a session of the caller's tenant. Raises NotFound (SESSION_NOT_FOUND)."""
        with peer_call("session"):
            answer = await self._stub.GetSession(
                session_service_pb2.GetSessionRequest(session_id=str(session_id)), timeout=_CALL_SECONDS
            )
        return _session(answer.session)

    async def messages(self, session_id: UUID, first: int, last: int) -> list[SourceMessage]:
        """Gives a stretch of a session's messages, in order. Raises NotFound (SESSION_NOT_FOUND)."""
        found: list[SourceMessage] = []
        token = ""
        while True:
            request = session_service_pb2.ListMessagesRequest(
                session_id=str(session_id), after_sequence=first - 1, page_size=min(_PAGE, last - first + 1)
            )
            request.page_token = token
            with peer_call("session"):
                page = await self._stub.ListMessages(request, timeout=_CALL_SECONDS)
            for message in page.messages:
                if message.sequence > last:
                    return found
                found.append(_message(message))
            token = page.next_page_token
            if not token or (found and found[-1].sequence >= last):
                return found

    async def newest(self, most: int) -> list[UUID]:
        """Gives the newest sessions of the caller's tenant."""
        found: list[UUID] = []
        token = ""
        while len(found) < most:
            with peer_call("session"):
                page = await self._stub.ListSessions(
                    session_service_pb2.ListSessionsRequest(page_size=_PAGE, page_token=token), timeout=_CALL_SECONDS
                )
            found += [UUID(session.session_id) for session in page.sessions]
            token = page.next_page_token
            if not token:
                break
        return found[:most]

    async def watch(self, cursor: str) -> AsyncGenerator[SessionChange, None]:
        """Yields changes of all tenants' sessions, after a cursor or from now on; outside of any call."""
        call = self._stub.WatchSessions(session_service_pb2.WatchSessionsRequest(cursor=cursor))
        try:
            with peer_call("session"):
                async for change in call:
                    yield _change(change)
        finally:
            # gRPC never collects a stream that was left.
            call.cancel()


class Registry:
    """The registry's agents."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: agent_service_pb2_grpc.AgentServiceAsyncStub = agent_service_pb2_grpc.AgentServiceStub(channel)

    async def policy(self, agent_id: UUID) -> Policy:
        """Gives what an agent of the caller's tenant wants remembered; of one that is gone, nothing."""
        try:
            with peer_call("registry"):
                answer = await self._stub.GetAgent(
                    agent_service_pb2.GetAgentRequest(agent_id=str(agent_id)), timeout=_CALL_SECONDS
                )
        except NotFound:
            return Policy()
        memory = answer.agent.behavior.memory
        return Policy(
            extract=memory.extract,
            episodes=memory.episodes,
            extractor=memory.extractor,
            extract_after_messages=memory.extract_after_messages or _DEFAULT_AFTER,
        )


class Models:
    """The gateway's chat models."""

    def __init__(self, channel: grpc.aio.Channel, *, model: str, answer_seconds: float) -> None:
        self._stub: inference_service_pb2_grpc.InferenceServiceAsyncStub = (
            inference_service_pb2_grpc.InferenceServiceStub(channel)
        )
        self._model = model
        self._answer_seconds = answer_seconds

    async def answer(self, instructions: str, question: str, schema: Mapping[str, Any]) -> str:
        """Asks the model that extracts, and gives its answer: JSON of the schema.

        Raises:
            Unavailable: the gateway or its provider can't do it now, or the answer came cut.
            InvalidArgument: the model can't be asked so.
        """
        request = inference_service_pb2.CompleteRequest(
            model=self._model,
            messages=[
                inference_pb2.ChatMessage(role=inference_pb2.CHAT_ROLE_SYSTEM, text=instructions),
                inference_pb2.ChatMessage(role=inference_pb2.CHAT_ROLE_USER, text=question),
            ],
            max_output_tokens=_OUTPUT_TOKENS,
            response_schema=to_struct(schema),
        )
        with peer_call("gateway"):
            answer = await self._stub.Complete(request, timeout=self._answer_seconds)
        if answer.completion.finish_reason != inference_pb2.FINISH_REASON_STOP:
            raise Unavailable(
                "The model's answer did not come whole.",
                reason="EXTRACTION_UNAVAILABLE",
                metadata={"cause": "ANSWER_CUT"},
            )
        return answer.completion.text


def _session(session: session_pb2.Session) -> Session:
    return Session(
        session_id=UUID(session.session_id),
        agent_id=UUID(session.agent_id),
        user_id=session.user_id,
        last_sequence=session.last_sequence,
        fork_sequence=session.fork_sequence,
        is_active=session.status == session_pb2.SESSION_STATUS_ACTIVE,
        update_time=session.update_time.ToDatetime(UTC),
    )


def _message(message: message_pb2.Message) -> SourceMessage:
    return SourceMessage(
        sequence=message.sequence,
        role=_ROLES.get(message.role, Role.SYSTEM),
        author=message.author,
        text="\n".join(said for part in message.parts if (said := _said(part)))[:_MOST_TEXT].replace("\x00", ""),
        create_time=message.create_time.ToDatetime(UTC),
    )


def _said(part: message_pb2.Part) -> str:
    match part.WhichOneof("content"):
        case "text":
            return part.text
        case "tool_result":
            output = MessageToDict(part.tool_result.output)
            return output if isinstance(output, str) else orjson.dumps(output).decode()
        case _:
            # Calls, thoughts and media are nobody's statement.
            return ""


def _change(change: session_service_pb2.WatchSessionsResponse) -> SessionChange:
    kinds = {
        session_pb2.SESSION_CHANGE_KIND_ACTIVE,
        session_pb2.SESSION_CHANGE_KIND_CLOSED,
        session_pb2.SESSION_CHANGE_KIND_EXPIRED,
        session_pb2.SESSION_CHANGE_KIND_DELETED,
    }
    if change.kind not in kinds:
        return SessionChange(change.cursor)
    return SessionChange(
        change.cursor,
        UUID(change.tenant_id),
        UUID(change.session_id),
        change.kind == session_pb2.SESSION_CHANGE_KIND_DELETED,
    )
