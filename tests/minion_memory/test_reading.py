"""GetMemory, ListMemories, DeleteMemory."""

from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest
from google.protobuf import struct_pb2
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_memory.stage import Stub, batch, placed, search, towards

NOT_FOUND = grpc.StatusCode.NOT_FOUND


async def stored(memories: Stub, **fields: object) -> str:
    response = await memories.StoreMemories(batch(placed(towards(0), **fields)))
    return response.results[0].memory.memory_id


async def test_absent_memory_is_not_found(memories: Stub) -> None:
    memory_id = str(uuid7())
    async with refused(NOT_FOUND, "MEMORY_NOT_FOUND") as refusal:
        await memories.GetMemory(pb.GetMemoryRequest(memory_id=memory_id))
    assert refusal.metadata == {"memory_id": memory_id}
    async with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
        await memories.DeleteMemory(pb.DeleteMemoryRequest(memory_id=memory_id))


async def test_foreign_memory_reads_as_absent(memories: Stub, strangers: Stub) -> None:
    agent_id = str(uuid4())
    memory_id = await stored(memories, agent_id=agent_id)
    async with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
        await strangers.GetMemory(pb.GetMemoryRequest(memory_id=memory_id))
    async with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
        await strangers.DeleteMemory(pb.DeleteMemoryRequest(memory_id=memory_id))
    assert len((await strangers.ListMemories(pb.ListMemoriesRequest(agent_id=agent_id))).memories) == 0
    found = await strangers.SearchMemories(search(agent_id, towards(0)))
    assert (len(found.hits), found.scope_count) == (0, 0)
    assert (await memories.GetMemory(pb.GetMemoryRequest(memory_id=memory_id))).memory.memory_id == memory_id


async def test_list_pages_newest_first_without_gap_or_repeat(memories: Stub) -> None:
    expected = [await stored(memories, key=f"single {number}") for number in range(3)]
    together = await memories.StoreMemories(batch(*[placed(towards(0), key=str(number)) for number in range(4)]))
    expected += [result.memory.memory_id for result in together.results]
    seen: list[str] = []
    token = ""
    while True:
        page = await memories.ListMemories(pb.ListMemoriesRequest(page_size=2, page_token=token))
        seen += [memory.memory_id for memory in page.memories]
        token = page.next_page_token
        if not token:
            break
        assert len(page.memories) == 2
    assert seen == expected[::-1]


async def test_list_shows_what_matches_every_filter(memories: Stub) -> None:
    agent_id, other_agent = str(uuid4()), str(uuid4())
    skill = memory_pb2.MEMORY_TYPE_SKILL
    mine = await stored(memories, agent_id=agent_id, user_id="ann")
    skilled = await stored(memories, agent_id=agent_id, user_id="ann", type=skill, key="s")
    bobs = await stored(memories, agent_id=agent_id, user_id="bob")
    others = await stored(memories, agent_id=other_agent, user_id="ann")

    async def listed(**filters: object) -> set[str]:
        page = await memories.ListMemories(pb.ListMemoriesRequest(**filters))  # type: ignore[arg-type]
        return {memory.memory_id for memory in page.memories}

    assert await listed() == {mine, skilled, bobs, others}
    assert await listed(agent_id=agent_id) == {mine, skilled, bobs}
    assert await listed(user_id="ann") == {mine, skilled, others}
    assert await listed(agent_id=agent_id, user_id="ann") == {mine, skilled}
    assert await listed(type=skill) == {skilled}
    assert await listed(agent_id=agent_id, user_id="bob", type=skill) == set()


async def test_large_page_size_is_coerced(memories: Stub) -> None:
    memory_id = await stored(memories)
    page = await memories.ListMemories(pb.ListMemoriesRequest(page_size=100_000))
    assert [memory.memory_id for memory in page.memories] == [memory_id]
    assert page.next_page_token == ""


async def test_page_ends_before_it_is_too_large_for_a_client(memories: Stub) -> None:
    squeezed = struct_pb2.Struct()
    squeezed.update({"text": "x" * 16_000})
    for number in range(4):
        await memories.StoreMemories(
            batch(
                *[
                    placed(towards(0), key=f"{number} {place}", content="é" * 14_000, metadata=squeezed)
                    for place in range(35)
                ]
            )
        )
    seen: list[str] = []
    token, pages = "", 0
    while pages == 0 or token:
        page = await memories.ListMemories(pb.ListMemoriesRequest(page_size=500, page_token=token))
        seen += [memory.memory_id for memory in page.memories]
        token, pages = page.next_page_token, pages + 1
    assert len(set(seen)) == len(seen) == 140
    assert pages == 3


@pytest.mark.parametrize("token", ["x", "AAAA", "a b", "é", "A" * 5_000])
async def test_malformed_page_token_is_refused(memories: Stub, token: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
        await memories.ListMemories(pb.ListMemoriesRequest(page_token=token))


async def test_page_token_is_bound_to_its_filters(memories: Stub) -> None:
    for number in range(2):
        await stored(memories, key=str(number))
    page = await memories.ListMemories(pb.ListMemoriesRequest(page_size=1))
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
        await memories.ListMemories(pb.ListMemoriesRequest(page_token=page.next_page_token, user_id="ann"))


async def test_deleted_memory_is_gone_with_its_vector_and_count(
    memories: Stub, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    agent_id = str(uuid4())
    memory_id = await stored(memories, agent_id=agent_id)
    await stored(memories, agent_id=agent_id, key="stays")
    await memories.DeleteMemory(pb.DeleteMemoryRequest(memory_id=memory_id))
    async with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
        await memories.GetMemory(pb.GetMemoryRequest(memory_id=memory_id))
    found = await memories.SearchMemories(search(agent_id, towards(0)))
    assert [hit.memory.key for hit in found.hits] == ["stays"]
    assert found.scope_count == 1
    connection = await asyncpg.connect(postgres.admin_dsn)
    left = await connection.fetchval("SELECT count(*) FROM memory.memory_vectors WHERE tenant_id = $1", tenant_id)
    await connection.close()
    assert left == 1


async def test_replayed_delete_succeeds(memories: Stub) -> None:
    request = pb.DeleteMemoryRequest(memory_id=await stored(memories), request_id=str(uuid7()))
    await memories.DeleteMemory(request)
    await memories.DeleteMemory(request)


async def test_delete_reusing_a_request_id_is_refused(memories: Stub) -> None:
    request_id = str(uuid7())
    await memories.DeleteMemory(pb.DeleteMemoryRequest(memory_id=await stored(memories), request_id=request_id))
    other = await stored(memories)
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await memories.DeleteMemory(pb.DeleteMemoryRequest(memory_id=other, request_id=request_id))
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await memories.StoreMemories(batch(placed(towards(0)), request_id=request_id))
    assert (await memories.GetMemory(pb.GetMemoryRequest(memory_id=other))).memory.memory_id == other
