"""The RPCs on subjects."""

from typing import Any

import grpc
from minion.memory.v1 import memory_service_pb2 as pb

from minion_memory.subjects import convert
from minion_memory.subjects.service import Subjects

Context = grpc.aio.ServicerContext[Any, Any]


class SubjectRpcs:
    """The part of minion.memory.v1.MemoryService that is about users who are to be forgotten."""

    _subjects: Subjects

    async def EraseSubject(self, request: pb.EraseSubjectRequest, context: Context) -> pb.EraseSubjectResponse:
        """Deletes all that is kept of a user."""
        receipt = await self._subjects.erase(*convert.erase_from_proto(request))
        return pb.EraseSubjectResponse(receipt=convert.receipt_to_proto(receipt))
