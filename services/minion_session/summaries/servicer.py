"""The RPCs on summaries."""

from typing import Any

import grpc
from minion.session.v1 import session_service_pb2 as pb

from minion_session.summaries import convert
from minion_session.summaries.service import Summaries

Context = grpc.aio.ServicerContext[Any, Any]


class SummaryRpcs:
    """The part of minion.session.v1.SessionService that is about summaries."""

    _summaries: Summaries

    async def SaveSummary(self, request: pb.SaveSummaryRequest, context: Context) -> pb.SaveSummaryResponse:
        """Keeps a summary beside the messages."""
        new, key = convert.save_from_proto(request)
        summary = await self._summaries.save(new, key)
        return pb.SaveSummaryResponse(summary=convert.to_proto(summary))

    async def ListSummaries(self, request: pb.ListSummariesRequest, context: Context) -> pb.ListSummariesResponse:
        """Lists summaries, newest first."""
        wanted = convert.list_from_proto(request)
        page = await self._summaries.list(wanted.session_id, page_size=wanted.page_size, page_token=wanted.page_token)
        return convert.page_to_proto(page)
