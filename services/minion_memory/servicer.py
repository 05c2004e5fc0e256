"""Puts the nouns' RPCs together into the one service of the contract."""

from minion.memory.v1.memory_service_pb2_grpc import MemoryServiceServicer

from minion_memory.memories.service import Memories
from minion_memory.memories.servicer import MemoryRpcs


class MemoryServicer(MemoryRpcs, MemoryServiceServicer):
    """Serves minion.memory.v1.MemoryService."""

    def __init__(self, memories: Memories) -> None:
        self._memories = memories
