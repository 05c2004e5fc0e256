"""Whatever is done to a memory, and by however many at once, its history is what a simple model says."""

import asyncio
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_testing.errors import refused
from uuid_utils.compat import uuid7

from tests.minion_memory.stage import Stub, batch, placed, towards

_BEGIN = Timestamp(seconds=1_700_000_000)
# What is done next, and with what: a content, or a revision counted from the newest.
_MOVES = st.lists(
    st.tuples(
        st.sampled_from(["store", "update", "update stale", "roll back", "again", "delete"]),
        st.sampled_from(["Tea.", "Coffee.", "Water."]),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=12,
)


def update(memory_id: str, content: str, **extra: Any) -> pb.UpdateMemoryRequest:
    return pb.UpdateMemoryRequest(
        memory=memory_pb2.Memory(memory_id=memory_id, content=content),
        update_mask=FieldMask(paths=["content"]),
        **extra,
    )


async def history(memories: Stub, memory_id: str) -> list[tuple[int, str]]:
    """The number and content of each state, oldest first."""
    listed = await memories.ListMemoryRevisions(pb.ListMemoryRevisionsRequest(memory_id=memory_id, page_size=100))
    return [(state.memory.revision, state.memory.content) for state in reversed(listed.revisions)]


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(moves=_MOVES)
async def test_a_memory_keeps_to_its_model(memories: Stub, moves: list[tuple[str, str, int]]) -> None:
    agent_id = str(uuid4())
    states: list[str] = []
    memory_id = ""
    last: tuple[pb.UpdateMemoryRequest, pb.UpdateMemoryResponse] | None = None
    for move, content, steps in moves:
        if move == "store" or not states:
            # With no time given it would be of now: the same text at another time is another state.
            new = placed(towards(0), agent_id=agent_id, key="k", content=content, occur_time=_BEGIN)
            stored = (await memories.StoreMemories(batch(new, request_id=uuid7()))).results[0]
            if not states or states[-1] != content:
                states.append(content)
            memory_id = stored.memory.memory_id
            assert (stored.memory.revision, stored.memory.content) == (len(states), content)
        elif move == "update":
            request = update(memory_id, content, etag=str(len(states)), request_id=str(uuid7()))
            answer = await memories.UpdateMemory(request)
            if states[-1] != content:
                states.append(content)
            assert (answer.memory.revision, answer.memory.content) == (len(states), content)
            last = request, answer
        elif move == "update stale":
            async with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
                await memories.UpdateMemory(update(memory_id, content, etag=str(len(states) + 1 + steps)))
        elif move == "roll back":
            wanted = max(1, len(states) - steps)
            rolled = await memories.RollbackMemory(pb.RollbackMemoryRequest(memory_id=memory_id, revision=wanted))
            if states[-1] != states[wanted - 1]:
                states.append(states[wanted - 1])
            assert (rolled.memory.revision, rolled.memory.content) == (len(states), states[-1])
        elif move == "again" and last is not None:
            assert await memories.UpdateMemory(last[0]) == last[1]
        elif move == "delete":
            await memories.DeleteMemory(pb.DeleteMemoryRequest(memory_id=memory_id, request_id=str(uuid7())))
            states, last = [], None
    if states:
        assert await history(memories, memory_id) == list(enumerate(states, start=1))


async def test_many_who_change_a_memory_at_once_make_a_history_without_gaps(memories: Stub) -> None:
    stored = (await memories.StoreMemories(batch(placed(towards(0), content="0")))).results[0].memory

    async def change(number: int) -> int:
        request = update(stored.memory_id, f"{number}", request_id=str(uuid7()))
        # Each is sent twice at once, as by a client that lost patience.
        answers = await asyncio.gather(memories.UpdateMemory(request), memories.UpdateMemory(request))
        assert answers[0] == answers[1]
        return answers[0].memory.revision

    made = await asyncio.gather(*[change(number) for number in range(1, 17)])
    assert sorted(made) == list(range(2, 18))
    kept = await history(memories, stored.memory_id)
    assert [revision for revision, _ in kept] == list(range(1, 18))
    assert sorted(int(content) for _, content in kept) == list(range(17))


async def test_of_many_with_the_same_etag_one_wins(memories: Stub) -> None:
    stored = (await memories.StoreMemories(batch(placed(towards(0), content="0")))).results[0].memory
    changes = [update(stored.memory_id, f"{number}", etag=stored.etag) for number in range(1, 9)]
    ended = await asyncio.gather(*[memories.UpdateMemory(one) for one in changes], return_exceptions=True)
    won = [answer for answer in ended if isinstance(answer, pb.UpdateMemoryResponse)]
    assert len(won) == 1
    lost = [error for error in ended if isinstance(error, grpc.aio.AioRpcError)]
    assert {error.code() for error in lost} == {grpc.StatusCode.ABORTED}
    assert await history(memories, stored.memory_id) == [(1, "0"), (2, won[0].memory.content)]
