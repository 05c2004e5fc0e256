"""The memory service's callers in tests, and vectors whose likeness is known."""

import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
from minion.memory.v1 import memory_pb2, memory_service_pb2
from minion.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from minion_postgres import Connection
from minion_testing.postgres import TRANSACTION_IDLE_SECONDS
from minion_testing.serving import Served

if TYPE_CHECKING:
    # Of the type stubs alone.
    from minion.memory.v1.memory_service_pb2_grpc import MemoryServiceAsyncStub

Stub: TypeAlias = "MemoryServiceAsyncStub"

MODEL = "local/all-minilm-l6-v2"
DIMENSION = 384


@asynccontextmanager
async def calling(served: Served, tenant_id: UUID) -> AsyncIterator[Stub]:
    """Opens a channel for a tenant, as the gateway calls."""
    async with served.acting(tenant_id) as channel:
        yield MemoryServiceStub(channel)


async def connected(dsn: str) -> Connection:
    """Opens a connection whose transactions may wait for the test for longer than its role's may."""
    limit = f"{TRANSACTION_IDLE_SECONDS:.0f}s"
    return await asyncpg.connect(dsn, server_settings={"idle_in_transaction_session_timeout": limit})


def towards(degrees: float, *, plane: int = 0) -> list[float]:
    """A unit vector at this angle to `towards(0)` of the same plane, so that their score is the angle's cosine."""
    values = [0.0] * DIMENSION
    values[2 * plane] = math.cos(math.radians(degrees))
    values[2 * plane + 1] = math.sin(math.radians(degrees))
    return values


def scattered(seed: int, *, about: list[float] | None = None, spread: float = 1.0) -> list[float]:
    """A random unit vector, around `about` where it is given."""
    source = random.Random(seed)  # noqa: S311 - test data
    values = [source.gauss(0, spread / math.sqrt(DIMENSION)) for _ in range(DIMENSION)]
    if about:
        values = [value + centre for value, centre in zip(values, about, strict=True)]
    length = math.hypot(*values)
    return [value / length for value in values]


def memory(**fields: Any) -> memory_pb2.Memory:
    """A memory to store; what is not given is filled in."""
    defaults = {"agent_id": str(uuid4()), "user_id": "ann", "type": memory_pb2.MEMORY_TYPE_FACT, "content": "Tea."}
    return memory_pb2.Memory(**{**defaults, **fields})


def placed(vector: list[float], **fields: Any) -> memory_service_pb2.NewMemory:
    """A memory to store at this vector."""
    return memory_service_pb2.NewMemory(
        memory=memory(**fields), embedding=memory_pb2.Embedding(model=MODEL, values=vector)
    )


def batch(*memories: memory_service_pb2.NewMemory, request_id: object = "") -> memory_service_pb2.StoreMemoriesRequest:
    """A request to store memories."""
    return memory_service_pb2.StoreMemoriesRequest(memories=memories, request_id=str(request_id))


def search(agent_id: str, vector: list[float], **fields: Any) -> memory_service_pb2.SearchMemoriesRequest:
    """A search of `ann`'s memories by vector."""
    return memory_service_pb2.SearchMemoriesRequest(
        **{
            "agent_id": agent_id,
            "user_id": "ann",
            "vector": memory_pb2.Embedding(model=MODEL, values=vector),
            **fields,
        }
    )
