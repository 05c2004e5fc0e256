"""The RPCs on messages and turns."""

from typing import Any

import grpc
from minion.session.v1 import session_service_pb2 as pb
from minion_grpc import wire

from minion_session.contexts import convert as contexts
from minion_session.messages import convert
from minion_session.messages.service import Messages

Context = grpc.aio.ServicerContext[Any, Any]


class MessageRpcs:
    """The part of minion.session.v1.SessionService that is about messages."""

    _messages: Messages

    async def AppendMessages(self, request: pb.AppendMessagesRequest, context: Context) -> pb.AppendMessagesResponse:
        """Appends messages to a session."""
        append, key = await wire.off_loop(convert.append_from_proto, request, request.ByteSize())
        appended = await self._messages.append(append, key)
        return convert.appended_to_proto(appended)

    async def ListMessages(self, request: pb.ListMessagesRequest, context: Context) -> pb.ListMessagesResponse:
        """Lists messages by sequence."""
        wanted = convert.list_from_proto(request)
        page = await self._messages.list(wanted.query, page_size=wanted.page_size, page_token=wanted.page_token)
        return await wire.off_loop(convert.page_to_proto, page, convert.json_bytes(page.messages))

    async def BeginTurn(self, request: pb.BeginTurnRequest, context: Context) -> pb.BeginTurnResponse:
        """Appends the user's message and returns the context."""
        turn = await wire.off_loop(convert.turn_from_proto, request, request.ByteSize())
        begun = await self._messages.begin_turn(turn)
        return await wire.off_loop(contexts.begun_to_proto, begun, convert.json_bytes(begun.context.messages))

    async def EndTurn(self, request: pb.EndTurnRequest, context: Context) -> pb.EndTurnResponse:
        """Releases a run's hold."""
        session_id, run_id = convert.end_from_proto(request)
        await self._messages.end_turn(session_id, run_id)
        return pb.EndTurnResponse()
