"""The RPC on expiry."""

from typing import Any

import grpc
from minion.session.v1 import session_service_pb2 as pb

from minion_session.expiry import convert
from minion_session.expiry.service import Expiry

Context = grpc.aio.ServicerContext[Any, Any]


class ExpiryRpcs:
    """The part of minion.session.v1.SessionService that is about sessions whose time is up."""

    _expiry: Expiry

    async def CleanupExpiredSessions(
        self, request: pb.CleanupExpiredSessionsRequest, context: Context
    ) -> pb.CleanupExpiredSessionsResponse:
        """Cleans up in the caller's tenant."""
        cleaned = await self._expiry.clean(convert.limit_from_proto(request))
        return convert.to_proto(cleaned)
