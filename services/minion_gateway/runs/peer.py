"""The session and memory services, as a turn needs them."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value
from minion.memory.v1 import memory_pb2, memory_service_pb2, memory_service_pb2_grpc
from minion.session.v1 import message_pb2, session_pb2, session_service_pb2, session_service_pb2_grpc
from minion_auth import tenant
from minion_errors import FailedPrecondition, NotFound, Violations
from minion_grpc import peer_call
from minion_grpc.wire import from_struct, from_value, json_bytes, off_loop, to_struct, to_value

from minion_gateway.agents.domain import ResolvedAgent
from minion_gateway.inference.domain import ChatMessage, Role, ToolCall
from minion_gateway.runs.domain import LeasedRun, Recalled, SessionFacts, ShownSummary, ToolResult
from minion_gateway.runs.prompt import stable_json, tool_text
from minion_gateway.runs.transcript import AssistantSaid, Said

# One try of one call; the engine tries again until the run is out of time.
_CALL_SECONDS = 10.0
_SEARCH_SECONDS = 5.0
_REMEMBERED_SESSIONS = 50_000

_SESSION = "/minion.session.v1.SessionService"
# All of them read, or carry the step that they come from.
SESSION_RETRYABLE = (
    f"{_SESSION}/GetSession",
    f"{_SESSION}/BeginTurn",
    f"{_SESSION}/AppendMessages",
    f"{_SESSION}/EndTurn",
    f"{_SESSION}/GetWorkspace",
    f"{_SESSION}/SetWorkspaceEntries",
)
MEMORY_RETRYABLE = (
    "/minion.memory.v1.MemoryService/SearchMemories",
    "/minion.memory.v1.MemoryService/StoreMemories",
)
# The memory service doesn't know an embedding model of ours, or has no room for its vectors yet.
_NO_SUCH_VECTORS = frozenset({"EMBEDDING_MODEL_NOT_FOUND", "EMBEDDING_MODEL_NOT_READY"})
_ROLES = {
    message_pb2.MESSAGE_ROLE_USER: Role.USER,
    message_pb2.MESSAGE_ROLE_ASSISTANT: Role.ASSISTANT,
    message_pb2.MESSAGE_ROLE_SYSTEM: Role.SYSTEM,
}


@dataclass(frozen=True, slots=True)
class OpenedTurn:
    """What the model is to be shown of the session; `message_sequence` is the user's message's.

    `tokens` is the session's count of it, the summary included; `is_all` says that it leaves no message out.
    """

    context: tuple[ChatMessage, ...]
    message_sequence: int
    summary: ShownSummary | None
    tokens: int
    is_all: bool


class SessionPeer:
    """The session service. Calls act for the caller in hand, as `minion_auth` knows it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: session_service_pb2_grpc.SessionServiceAsyncStub = session_service_pb2_grpc.SessionServiceStub(
            channel
        )
        self._facts: dict[tuple[UUID, UUID], SessionFacts] = {}

    async def facts(self, session_id: UUID) -> SessionFacts:
        """Returns what never changes about a session of the caller's tenant; asks once.

        Raises NotFound (SESSION_NOT_FOUND), or FailedPrecondition (SESSION_NOT_ACTIVE) when it takes no turns.
        """
        key = (tenant(), session_id)
        known = self._facts.get(key)
        if known is not None:
            return known
        with peer_call("session"):
            answer = await self._stub.GetSession(
                session_service_pb2.GetSessionRequest(session_id=str(session_id)), timeout=_CALL_SECONDS
            )
        session = answer.session
        if session.status != session_pb2.SESSION_STATUS_ACTIVE:
            raise FailedPrecondition(
                "The session takes no more turns.",
                reason="SESSION_NOT_ACTIVE",
                metadata={
                    "session_id": str(session_id),
                    "status": session_pb2.SessionStatus.Name(session.status).removeprefix("SESSION_STATUS_"),
                },
            )
        facts = SessionFacts(session_id, UUID(session.agent_id), session.user_id)
        if len(self._facts) >= _REMEMBERED_SESSIONS:
            del self._facts[next(iter(self._facts))]
        self._facts[key] = facts
        return facts

    def forget(self, tenant_id: UUID, session_id: UUID) -> None:
        """Asks anew next time: the session was closed or deleted."""
        self._facts.pop((tenant_id, session_id), None)

    async def begin(self, run: LeasedRun, agent: ResolvedAgent, *, step: int, hold_seconds: float) -> OpenedTurn:
        """Appends the user's message, once for ever, and returns the context as it was then.

        Raises NotFound (SESSION_NOT_FOUND) when it is another session than the run was accepted for: one that was
        deleted, and whose id its client gave to the next.
        """
        request = session_service_pb2.BeginTurnRequest(
            session_id=str(run.session_id),
            message=message_pb2.Message(
                role=message_pb2.MESSAGE_ROLE_USER,
                author=run.user_id,
                parts=[message_pb2.Part(text=run.text)],
            ),
            source=message_pb2.RunSource(run_id=str(run.run_id), step_sequence=step),
            hold=Duration(seconds=int(hold_seconds)),
            token_budget=agent.token_budget,
            max_messages=agent.max_messages,
        )
        with peer_call("session"):
            answer = await self._stub.BeginTurn(request, timeout=_CALL_SECONDS)
        if (answer.session.agent_id, answer.session.user_id) != (str(run.agent_id), run.user_id):
            raise NotFound(
                "The session that the run was accepted for is gone; another has its id.",
                reason="SESSION_NOT_FOUND",
                metadata={"session_id": str(run.session_id)},
            )
        context = await off_loop(_context, answer.context, _bytes_of_json(answer.context))
        summary = _summary(answer.summary) if answer.HasField("summary") else None
        return OpenedTurn(
            context, answer.message.sequence, summary, answer.context_token_count, is_all=not answer.truncated
        )

    async def append(self, run: LeasedRun, author: str, said: Sequence[Said], *, step: int, release: bool) -> None:
        """Appends a step's messages, once for ever; with `release` the session is free for the next run."""
        messages = await off_loop(partial(_messages, author), said, json_bytes(_values(said)))
        request = session_service_pb2.AppendMessagesRequest(
            session_id=str(run.session_id),
            messages=messages,
            source=message_pb2.RunSource(run_id=str(run.run_id), step_sequence=step),
            release_hold=release,
        )
        with peer_call("session"):
            await self._stub.AppendMessages(request, timeout=_CALL_SECONDS)

    async def release(self, session_id: UUID, run_id: UUID) -> None:
        """Ends a run's hold on a session, if it has one."""
        request = session_service_pb2.EndTurnRequest(session_id=str(session_id), run_id=str(run_id))
        with peer_call("session"):
            await self._stub.EndTurn(request, timeout=_CALL_SECONDS)

    async def workspace(self, session_id: UUID, keys: Sequence[str]) -> dict[str, Any]:
        """Returns entries of the session's working memory; all, when no keys are given."""
        request = session_service_pb2.GetWorkspaceRequest(session_id=str(session_id), keys=keys)
        with peer_call("session"):
            answer = await self._stub.GetWorkspace(request, timeout=_CALL_SECONDS)
        return await off_loop(_entries, answer, answer.ByteSize())

    async def set_workspace(self, session_id: UUID, key: str, value: Any, request_id: UUID) -> int:
        """Sets an entry of the session's working memory, once a `request_id`; returns its version."""
        request = session_service_pb2.SetWorkspaceEntriesRequest(
            session_id=str(session_id),
            changes=[session_service_pb2.WorkspaceChange(key=key, value=to_value(value))],
            request_id=str(request_id),
        )
        with peer_call("session"):
            answer = await self._stub.SetWorkspaceEntries(request, timeout=_CALL_SECONDS)
        return int(answer.entries[0].version)


class MemoryPeer:
    """The memory service. Calls act for the caller in hand."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: memory_service_pb2_grpc.MemoryServiceAsyncStub = memory_service_pb2_grpc.MemoryServiceStub(channel)

    async def search(
        self,
        agent_id: UUID,
        user_id: str,
        *,
        query: str,
        model: str,
        vector: "array[float]",
        limit: int,
        min_score: float,
    ) -> tuple[Recalled, ...]:
        """Returns the memories of an agent and user that fit a text best: by its vector and by its words.

        Where the memory service has no vectors of the model, it is left to embed the text by its own.
        """
        request = memory_service_pb2.SearchMemoriesRequest(
            agent_id=str(agent_id),
            user_id=user_id,
            query=query,
            vector=memory_pb2.Embedding(model=model, values=vector),
            min_score=min_score,
            limit=limit,
        )
        try:
            answer = await self._search(request)
        except (NotFound, FailedPrecondition) as fault:
            if fault.reason not in _NO_SUCH_VECTORS:
                raise
            request.ClearField("vector")
            answer = await self._search(request)
        return tuple(
            Recalled(
                hit.memory.memory_id,
                hit.memory.content,
                hit.score,
                memory_pb2.MemoryType.Name(hit.memory.type).removeprefix("MEMORY_TYPE_"),
                memory_pb2.MemoryTrust.Name(hit.memory.trust).removeprefix("MEMORY_TRUST_"),
                hit.similarity if hit.HasField("similarity") else None,
            )
            for hit in answer.hits
        )

    async def _search(
        self, request: memory_service_pb2.SearchMemoriesRequest
    ) -> memory_service_pb2.SearchMemoriesResponse:
        with peer_call("memory"):
            return await self._stub.SearchMemories(request, timeout=_SEARCH_SECONDS)

    async def store(self, memory: "NewMemory", request_id: UUID) -> str:
        """Stores a memory, once a `request_id`; returns what that did: CREATED, UPDATED or UNCHANGED.

        Where the memory service has no vectors of the model, it is left to embed the content by its own.
        """
        stored = memory_pb2.Memory(
            agent_id=str(memory.agent_id),
            user_id=memory.user_id,
            key=memory.key,
            type=memory_pb2.MemoryType.Value(f"MEMORY_TYPE_{memory.kind}"),
            content=memory.content,
            speaker=memory.user_id if memory.said_by_user else "",
            trust=memory_pb2.MEMORY_TRUST_USER if memory.said_by_user else memory_pb2.MEMORY_TRUST_TOOL,
            source=memory_pb2.MemorySource(
                session_id=str(memory.session_id),
                message_sequences=[memory.message_sequence] if memory.message_sequence else [],
                quote=memory.quote,
            ),
        )
        item = memory_service_pb2.NewMemory(
            memory=stored, embedding=memory_pb2.Embedding(model=memory.model, values=memory.vector)
        )
        request = memory_service_pb2.StoreMemoriesRequest(memories=[item], request_id=str(request_id))
        try:
            answer = await self._store(request)
        except (NotFound, FailedPrecondition) as fault:
            if fault.reason not in _NO_SUCH_VECTORS:
                raise
            request.memories[0].ClearField("embedding")
            answer = await self._store(request)
        return _outcome(answer)

    async def _store(
        self, request: memory_service_pb2.StoreMemoriesRequest
    ) -> memory_service_pb2.StoreMemoriesResponse:
        with peer_call("memory"):
            return await self._stub.StoreMemories(request, timeout=_CALL_SECONDS)


@dataclass(frozen=True, slots=True)
class NewMemory:
    """A memory that a run stores, with its vector. `said_by_user`: the words are the user's own."""

    agent_id: UUID
    user_id: str
    session_id: UUID
    key: str
    kind: str
    content: str
    quote: str
    said_by_user: bool
    message_sequence: int
    model: str
    vector: "array[float]"


def _outcome(answer: memory_service_pb2.StoreMemoriesResponse) -> str:
    """Names what storing one memory did."""
    return memory_pb2.StoreOutcome.Name(answer.results[0].outcome).removeprefix("STORE_OUTCOME_")


def _summary(summary: session_pb2.Summary) -> ShownSummary:
    return ShownSummary(
        summary.summary_id,
        summary.first_sequence,
        summary.last_sequence,
        summary.text,
        summary.token_count,
        summary.model,
    )


def json_of(value: Value) -> Any:
    """Reads a value that a service of ours has checked."""
    return from_value(value, "", Violations())


def _entries(answer: session_service_pb2.GetWorkspaceResponse) -> dict[str, Any]:
    return {entry.key: json_of(entry.value) for entry in answer.entries}


def _bytes_of_json(messages: Iterable[message_pb2.Message]) -> int:
    """Measures messages for `off_loop`: the JSON in them."""
    return sum(part.ByteSize() for message in messages for part in message.parts if not part.HasField("text"))


def _context(messages: Iterable[message_pb2.Message]) -> tuple[ChatMessage, ...]:
    return tuple(shown for message in messages for shown in _shown(message))


def _shown(message: message_pb2.Message) -> list[ChatMessage]:
    if message.role == message_pb2.MESSAGE_ROLE_TOOL:
        results = [part.tool_result for part in message.parts if part.HasField("tool_result")]
        return [
            ChatMessage(
                Role.TOOL,
                tool_text(ToolResult(json_of(result.output), result.is_error, 0)),
                tool_call_id=result.tool_call_id,
            )
            for result in results
        ]
    calls = tuple(
        ToolCall(call.tool_call_id, call.name, stable_json(from_struct(call.arguments, "", Violations())))
        for call in (part.tool_call for part in message.parts if part.HasField("tool_call"))
    )
    text = "\n".join(words for part in message.parts if (words := _words(part)))
    return [ChatMessage(_ROLES[message.role], text, calls)]


def _words(part: message_pb2.Part) -> str:
    """What a part says. Images and files are told in words, as the session tells an assistant's: none is sent yet."""
    if not part.HasField("media"):
        return part.text
    media = part.media
    place = f"the blob {media.blob_id}" if media.HasField("blob_id") else media.uri
    return f"[{media.name}, {media.media_type}: {place}]" if media.name else f"[{media.media_type}: {place}]"


def _values(said: Iterable[Said]) -> Iterator[Any]:
    """The JSON in what was said."""
    for message in said:
        if isinstance(message, AssistantSaid):
            yield from (call.arguments for call in message.calls)
        else:
            yield message.output


def _messages(author: str, said: Iterable[Said]) -> list[message_pb2.Message]:
    return [_message(message, author) for message in said]


def _message(said: Said, author: str) -> message_pb2.Message:
    if isinstance(said, AssistantSaid):
        parts = [message_pb2.Part(text=said.text)] if said.text else []
        parts += [
            message_pb2.Part(
                tool_call=message_pb2.ToolCall(
                    tool_call_id=call.call_id, name=call.name, arguments=to_struct(call.arguments or {})
                )
            )
            for call in said.calls
        ]
        return message_pb2.Message(
            role=message_pb2.MESSAGE_ROLE_ASSISTANT, author=author, parts=parts, token_count=said.tokens
        )
    result = message_pb2.ToolResult(
        tool_call_id=said.call_id,
        name=said.name,
        output=to_value(said.output),
        is_error=said.is_error,
        blob_id=said.blob_id,
    )
    return message_pb2.Message(role=message_pb2.MESSAGE_ROLE_TOOL, parts=[message_pb2.Part(tool_result=result)])
