"""The RPC on changes."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from minion.session.v1 import session_service_pb2 as pb

from minion_session.changes import convert
from minion_session.changes.service import Changes

Context = grpc.aio.ServicerContext[Any, Any]


class ChangeRpcs:
    """The part of minion.session.v1.SessionService that is about what happens to sessions."""

    _changes: Changes

    async def WatchSessions(
        self, request: pb.WatchSessionsRequest, context: Context
    ) -> AsyncIterator[pb.WatchSessionsResponse]:
        """Sends what happens to sessions, for as long as the caller stays."""
        async with aclosing(self._changes.watch(request.cursor)) as changes:
            async for change in changes:
                yield convert.to_proto(change)
