"""The RPCs on messages and turns."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from minion.session.v1 import session_service_pb2 as pb
from minion_grpc import wire

from minion_session.messages import convert
from minion_session.messages.service import Messages
from minion_session.messages.watching import CaughtUp, MessageWatch

Context = grpc.aio.ServicerContext[Any, Any]


class MessageRpcs:
    """The part of minion.session.v1.SessionService that is about messages."""

    _messages: Messages
    _message_watch: MessageWatch

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

    async def WatchMessages(
        self, request: pb.WatchMessagesRequest, context: Context
    ) -> AsyncIterator[pb.WatchMessagesResponse]:
        """Sends messages by sequence, then those to come, for as long as the caller stays."""
        session_id, after = convert.watch_from_proto(request)
        async with aclosing(self._message_watch.watch(session_id, after)) as watch:
            async for told in watch:
                if isinstance(told, CaughtUp):
                    yield pb.WatchMessagesResponse(synced_sequence=told.sequence)
                    continue
                for response in await wire.off_loop(convert.watched_to_proto, told, convert.json_bytes(told)):
                    yield response

    async def BeginTurn(self, request: pb.BeginTurnRequest, context: Context) -> pb.BeginTurnResponse:
        """Appends the user's message and returns the context."""
        turn = await wire.off_loop(convert.turn_from_proto, request, request.ByteSize())
        begun = await self._messages.begin_turn(turn)
        return await wire.off_loop(convert.begun_to_proto, begun, convert.json_bytes(begun.context))

    async def EndTurn(self, request: pb.EndTurnRequest, context: Context) -> pb.EndTurnResponse:
        """Releases a run's hold."""
        session_id, run_id = convert.end_from_proto(request)
        await self._messages.end_turn(session_id, run_id)
        return pb.EndTurnResponse()
