"""The RPC on contexts."""

from typing import Any

import grpc
from minion.session.v1 import session_service_pb2 as pb
from minion_grpc import wire

from minion_session.contexts import convert
from minion_session.contexts.service import Contexts
from minion_session.messages.convert import json_bytes

Context = grpc.aio.ServicerContext[Any, Any]


class ContextRpcs:
    """The part of minion.session.v1.SessionService that is about contexts."""

    _contexts: Contexts

    async def GetContext(self, request: pb.GetContextRequest, context: Context) -> pb.GetContextResponse:
        """Returns what a model is to be shown of a session."""
        found = await self._contexts.get(convert.get_from_proto(request))
        return await wire.off_loop(convert.context_to_proto, found, json_bytes(found.context.messages))
