"""The RPCs that stream memories."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
from minion.memory.v1 import memory_service_pb2 as pb
from minion_grpc import wire

from minion_memory.memories.domain import NewMemory
from minion_memory.portability import convert
from minion_memory.portability.service import Portability

Context = grpc.aio.ServicerContext[Any, Any]


class PortabilityRpcs:
    """The part of minion.memory.v1.MemoryService that streams memories out and in."""

    _portability: Portability

    async def ExportMemories(
        self, request: pb.ExportMemoriesRequest, context: Context
    ) -> AsyncIterator[pb.ExportMemoriesResponse]:
        """Streams memories out."""
        async for exported in self._portability.export(convert.export_from_proto(request)):
            yield convert.exported_to_proto(exported)

    async def ImportMemories(
        self, request_iterator: AsyncIterator[pb.ImportMemoriesRequest], context: Context
    ) -> pb.ImportMemoriesResponse:
        """Takes a stream of memories in."""
        imported = await self._portability.take_in(_read(request_iterator))
        return convert.imported_to_proto(imported)


async def _read(requests: AsyncIterator[pb.ImportMemoriesRequest]) -> AsyncIterator[NewMemory]:
    index = 0
    async for request in requests:
        yield await wire.off_loop(
            lambda given: convert.import_from_proto(given[0], given[1]), (request, index), request.ByteSize()
        )
        index += 1
