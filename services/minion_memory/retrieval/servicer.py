"""The RPC that finds memories."""

from typing import Any

import grpc
from minion.memory.v1 import memory_service_pb2 as pb
from minion_grpc import wire

from minion_memory.retrieval import convert
from minion_memory.retrieval.service import Retrieval

Context = grpc.aio.ServicerContext[Any, Any]


class RetrievalRpcs:
    """The part of minion.memory.v1.MemoryService that finds memories."""

    _retrieval: Retrieval

    async def SearchMemories(self, request: pb.SearchMemoriesRequest, context: Context) -> pb.SearchMemoriesResponse:
        """Finds the memories of an agent and user that fit best, by meaning and by words."""
        found = await self._retrieval.search(convert.search_from_proto(request))
        size = wire.json_bytes(hit.memory.metadata for hit in found.hits)
        return await wire.off_loop(convert.found_to_proto, found, size)
