"""The RPC on erasure."""

from typing import Any

import grpc
from minion.session.v1 import session_service_pb2 as pb

from minion_session.erasure import convert
from minion_session.erasure.service import Erasure

Context = grpc.aio.ServicerContext[Any, Any]


class ErasureRpcs:
    """The part of minion.session.v1.SessionService that erases users."""

    _erasure: Erasure

    async def EraseSubject(self, request: pb.EraseSubjectRequest, context: Context) -> pb.EraseSubjectResponse:
        """Deletes all that is kept of a user."""
        user_id, erasure_id = convert.erase_from_proto(request)
        receipt = await self._erasure.erase(user_id, erasure_id)
        return pb.EraseSubjectResponse(receipt=convert.to_proto(receipt))
