"""The RPCs on sessions."""

from typing import Any

import grpc
from minion.session.v1 import session_service_pb2 as pb
from minion_grpc import wire

from minion_session.sessions import convert
from minion_session.sessions.service import Sessions

Context = grpc.aio.ServicerContext[Any, Any]


class SessionRpcs:
    """The part of minion.session.v1.SessionService that is about sessions."""

    _sessions: Sessions

    async def CreateSession(self, request: pb.CreateSessionRequest, context: Context) -> pb.CreateSessionResponse:
        """Opens a session."""
        new, key = convert.create_from_proto(request)
        session = await self._sessions.create(new, key)
        return pb.CreateSessionResponse(session=convert.to_proto(session))

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        """Returns a session."""
        session_id = convert.get_from_proto(request)
        session = await self._sessions.get(session_id)
        return pb.GetSessionResponse(session=convert.to_proto(session))

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        """Lists sessions, newest first."""
        wanted = convert.list_from_proto(request)
        page = await self._sessions.list(wanted.wanted, page_size=wanted.page_size, page_token=wanted.page_token)
        size = wire.json_bytes(session.metadata for session in page.sessions)
        return await wire.off_loop(convert.page_to_proto, page, size)

    async def UpdateSession(self, request: pb.UpdateSessionRequest, context: Context) -> pb.UpdateSessionResponse:
        """Changes what a session is called and what the caller keeps with it."""
        session_id, changes, etag, key = convert.update_from_proto(request)
        session = await self._sessions.update(session_id, changes, etag, key)
        return pb.UpdateSessionResponse(session=convert.to_proto(session))

    async def ExtendSession(self, request: pb.ExtendSessionRequest, context: Context) -> pb.ExtendSessionResponse:
        """Gives a session another time to live."""
        session_id, ttl, key = convert.extend_from_proto(request)
        session = await self._sessions.extend(session_id, ttl, key)
        return pb.ExtendSessionResponse(session=convert.to_proto(session))

    async def CloseSession(self, request: pb.CloseSessionRequest, context: Context) -> pb.CloseSessionResponse:
        """Closes a session."""
        session_id, key = convert.named_from_proto(request)
        session = await self._sessions.close(session_id, key)
        return pb.CloseSessionResponse(session=convert.to_proto(session))

    async def ArchiveSession(self, request: pb.ArchiveSessionRequest, context: Context) -> pb.ArchiveSessionResponse:
        """Archives a session that is closed or expired."""
        session_id, key = convert.named_from_proto(request)
        session = await self._sessions.archive(session_id, key)
        return pb.ArchiveSessionResponse(session=convert.to_proto(session))

    async def DeleteSession(self, request: pb.DeleteSessionRequest, context: Context) -> pb.DeleteSessionResponse:
        """Deletes a session with all that hangs on it."""
        session_id, key = convert.named_from_proto(request)
        await self._sessions.delete(session_id, key)
        return pb.DeleteSessionResponse()
