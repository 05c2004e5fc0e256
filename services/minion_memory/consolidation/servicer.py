"""The RPC on consolidation."""

from typing import Any

import grpc
from minion.memory.v1 import memory_service_pb2 as pb

from minion_memory.consolidation import convert
from minion_memory.consolidation.service import Consolidation

Context = grpc.aio.ServicerContext[Any, Any]


class ConsolidationRpcs:
    """The part of minion.memory.v1.MemoryService that is about putting memories in order."""

    _consolidation: Consolidation

    async def ConsolidateMemories(
        self, request: pb.ConsolidateMemoriesRequest, context: Context
    ) -> pb.ConsolidateMemoriesResponse:
        """Merges what says the same, ends what is no longer so, and prunes what is of little worth."""
        scope, key = convert.scope_from_proto(request)
        return convert.consolidated_to_proto(await self._consolidation.consolidate(scope, key))
