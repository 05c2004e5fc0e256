"""What is large fits into a reply, and holds nobody else up."""

from uuid import uuid4

from google.protobuf import struct_pb2
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_testing.stalls import longest_stall

from tests.minion_memory.stage import Stub, batch, placed, search, towards

_REPLY = 3 * 1024 * 1024


def _numbers() -> struct_pb2.Struct:
    # 16 KiB as JSON, 88 KB on the wire: nothing grows more.
    made = struct_pb2.Struct()
    made.update({"n": [1] * 8_000})
    return made


async def _store_a_hundred(memories: Stub, agent_id: str, **fields: object) -> None:
    for start in range(0, 100, 20):
        await memories.StoreMemories(
            batch(
                *[
                    placed(towards(angle), agent_id=agent_id, key=f"{angle}", **fields)
                    for angle in range(start, start + 20)
                ]
            )
        )


async def test_hits_of_a_search_end_before_they_are_too_large_for_a_client(memories: Stub) -> None:
    agent_id = str(uuid4())
    await _store_a_hundred(memories, agent_id, content="é" * 26_000)
    found = await memories.SearchMemories(search(agent_id, towards(0), limit=100))
    size = found.ByteSize()
    assert _REPLY - 120_000 < size < _REPLY
    # The best, none left out on the way.
    assert [hit.memory.key for hit in found.hits] == [str(angle) for angle in range(len(found.hits))]
    assert (found.plan, found.scope_count) == (memory_pb2.SEARCH_PLAN_EXACT, 100)


async def test_metadata_counts_as_what_it_takes_on_the_wire(memories: Stub) -> None:
    agent_id = str(uuid4())
    await _store_a_hundred(memories, agent_id, metadata=_numbers())
    found = await memories.SearchMemories(search(agent_id, towards(0), limit=100))
    assert _REPLY * 0.7 < found.ByteSize() < _REPLY
    seen: list[str] = []
    token, pages = "", 0
    while pages == 0 or token:
        page = await memories.ListMemories(pb.ListMemoriesRequest(agent_id=agent_id, page_size=500, page_token=token))
        assert page.ByteSize() < _REPLY
        seen += [memory.memory_id for memory in page.memories]
        token, pages = page.next_page_token, pages + 1
    assert len(set(seen)) == len(seen) == 100


async def test_large_memories_are_converted_off_the_loop(memories: Stub) -> None:
    agent_id = str(uuid4())
    new = [placed(towards(angle), agent_id=agent_id, key=f"{angle}", metadata=_numbers()) for angle in range(20)]
    assert await longest_stall(lambda: memories.StoreMemories(batch(*new))) < 0.4
    assert await longest_stall(lambda: memories.ListMemories(pb.ListMemoriesRequest(agent_id=agent_id))) < 0.4
    assert await longest_stall(lambda: memories.SearchMemories(search(agent_id, towards(0), limit=100))) < 0.4
