"""The RPCs on memories."""

from collections.abc import Iterable
from typing import Any

import grpc
from minion.memory.v1 import memory_service_pb2 as pb
from minion_grpc import wire

from minion_memory.memories import convert
from minion_memory.memories.domain import Memory
from minion_memory.memories.service import Memories

Context = grpc.aio.ServicerContext[Any, Any]


class MemoryRpcs:
    """The part of minion.memory.v1.MemoryService that is about memories, and their search."""

    _memories: Memories

    async def StoreMemories(self, request: pb.StoreMemoriesRequest, context: Context) -> pb.StoreMemoriesResponse:
        """Stores memories, all or none."""
        batch, key = await wire.off_loop(convert.store_from_proto, request, request.ByteSize())
        stored = await self._memories.store(batch, key)
        return await wire.off_loop(convert.stored_to_proto, stored, _json_bytes(one.memory for one in stored))

    async def GetMemory(self, request: pb.GetMemoryRequest, context: Context) -> pb.GetMemoryResponse:
        """Returns a memory."""
        memory = await self._memories.get(convert.memory_id_from_proto(request))
        return pb.GetMemoryResponse(memory=convert.memory_to_proto(memory))

    async def GetMemoryByKey(self, request: pb.GetMemoryByKeyRequest, context: Context) -> pb.GetMemoryByKeyResponse:
        """Returns the memory that is filed under a key."""
        memory = await self._memories.get_by_key(*convert.by_key_from_proto(request))
        return pb.GetMemoryByKeyResponse(memory=convert.memory_to_proto(memory))

    async def UpdateMemory(self, request: pb.UpdateMemoryRequest, context: Context) -> pb.UpdateMemoryResponse:
        """Changes a memory."""
        update, key = convert.update_from_proto(request)
        memory = await self._memories.update(update, key)
        return pb.UpdateMemoryResponse(memory=convert.memory_to_proto(memory))

    async def ListMemories(self, request: pb.ListMemoriesRequest, context: Context) -> pb.ListMemoriesResponse:
        """Lists memories, newest first."""
        filters, page_size = convert.list_from_proto(request)
        page, token = await self._memories.list(filters, page_size=page_size, page_token=request.page_token)
        memories = await wire.off_loop(convert.memories_to_proto, page.memories, _json_bytes(page.memories))
        return pb.ListMemoriesResponse(memories=memories, next_page_token=token)

    async def DeleteMemory(self, request: pb.DeleteMemoryRequest, context: Context) -> pb.DeleteMemoryResponse:
        """Deletes a memory."""
        memory_id, key = convert.delete_from_proto(request)
        await self._memories.delete(memory_id, key)
        return pb.DeleteMemoryResponse()

    async def SearchMemories(self, request: pb.SearchMemoriesRequest, context: Context) -> pb.SearchMemoriesResponse:
        """Finds the memories of an agent and user that are nearest in meaning."""
        found = await self._memories.search(convert.search_from_proto(request))
        return await wire.off_loop(convert.found_to_proto, found, _json_bytes(hit.memory for hit in found.hits))


def _json_bytes(memories: Iterable[Memory]) -> int:
    return wire.json_bytes(memory.metadata for memory in memories)
