"""The RPCs on revisions."""

from typing import Any

import grpc
from minion.memory.v1 import memory_service_pb2 as pb
from minion_grpc import wire

from minion_memory.memories.convert import memory_to_proto
from minion_memory.revisions import convert
from minion_memory.revisions.service import Revisions

Context = grpc.aio.ServicerContext[Any, Any]


class RevisionRpcs:
    """The part of minion.memory.v1.MemoryService that is about the states that memories were in."""

    _revisions: Revisions

    async def ListMemoryRevisions(
        self, request: pb.ListMemoryRevisionsRequest, context: Context
    ) -> pb.ListMemoryRevisionsResponse:
        """Lists the states that a memory was in, newest first."""
        memory_id, page_size = convert.list_from_proto(request)
        page, token = await self._revisions.list(memory_id, page_size=page_size, page_token=request.page_token)
        size = wire.json_bytes(revision.memory.metadata for revision in page.revisions)
        revisions = await wire.off_loop(convert.page_to_proto, page, size)
        return pb.ListMemoryRevisionsResponse(revisions=revisions, next_page_token=token)

    async def RollbackMemory(self, request: pb.RollbackMemoryRequest, context: Context) -> pb.RollbackMemoryResponse:
        """Puts a memory back into a former state."""
        rollback, key = convert.rollback_from_proto(request)
        memory = await self._revisions.roll_back(rollback, key)
        return pb.RollbackMemoryResponse(memory=memory_to_proto(memory))
