"""The RPC on forks."""

from typing import Any

import grpc
from minion.session.v1 import session_service_pb2 as pb

from minion_session.forks import convert
from minion_session.forks.service import Forks
from minion_session.sessions.convert import to_proto

Context = grpc.aio.ServicerContext[Any, Any]


class ForkRpcs:
    """The part of minion.session.v1.SessionService that is about forks."""

    _forks: Forks

    async def ForkSession(self, request: pb.ForkSessionRequest, context: Context) -> pb.ForkSessionResponse:
        """Opens a session that begins with another one's messages."""
        new, key = convert.fork_from_proto(request)
        session = await self._forks.fork(new, key)
        return pb.ForkSessionResponse(session=to_proto(session))
