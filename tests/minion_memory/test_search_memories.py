"""SearchMemories: exact for small scopes, by index for large ones, and never fewer than there are."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import serve

from tests.minion_memory.stage import MODEL, Stub, batch, calling, placed, scattered, search, towards

EXACT, HNSW, AGAIN = (
    memory_pb2.SEARCH_PLAN_EXACT,
    memory_pb2.SEARCH_PLAN_HNSW,
    memory_pb2.SEARCH_PLAN_HNSW_THEN_EXACT,
)
FACT, SKILL = memory_pb2.MEMORY_TYPE_FACT, memory_pb2.MEMORY_TYPE_SKILL
# All at once, so that nothing but the vectors tells them apart.
_THEN = Timestamp(seconds=1_700_000_000)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def large(postgres: ClonedDatabase) -> AsyncIterator[tuple[Stub, str, list[list[float]]]]:
    """600 memories of one scope, one in fifty a skill, in a tenant where 200 are a large scope; 300 of another."""
    agent_id = str(uuid4())
    centres = [scattered(seed) for seed in range(20)]
    vectors = [scattered(1_000 + number, about=centres[number % 20], spread=0.5) for number in range(600)]
    async with (
        serve("memory", postgres, exact_search_limit=200, walk_limit=1_000, access_write_seconds=3_600) as served,
        calling(served, uuid4()) as stub,
    ):
        new = [
            placed(vector, agent_id=agent_id, key=str(number), type=FACT if number % 50 else SKILL, occur_time=_THEN)
            for number, vector in enumerate(vectors)
        ]
        new += [placed(vector, agent_id=agent_id, user_id="bob", key=str(n)) for n, vector in enumerate(vectors[:300])]
        for start in range(0, len(new), 100):
            await stub.StoreMemories(batch(*new[start : start + 100]))
        owner = await asyncpg.connect(postgres.dsn("memory", "owner"))
        await owner.execute("ANALYZE memory.memory_vectors")
        await owner.close()
        yield stub, agent_id, vectors


def nearest(vectors: list[list[float]], wanted: list[float], limit: int) -> list[str]:
    scores = [math.fsum(a * b for a, b in zip(vector, wanted, strict=True)) for vector in vectors]
    return [str(number) for number in sorted(range(len(vectors)), key=lambda number: -scores[number])[:limit]]


async def test_small_scope_is_compared_whole_best_first(memories: Stub) -> None:
    agent_id = str(uuid4())
    await memories.StoreMemories(
        batch(*[placed(towards(angle), agent_id=agent_id, key=str(angle)) for angle in (90, 0, 45, 180)])
    )
    found = await memories.SearchMemories(search(agent_id, towards(0)))
    assert [hit.memory.key for hit in found.hits] == ["0", "45", "90", "180"]
    assert [hit.similarity for hit in found.hits] == pytest.approx([1, math.sqrt(0.5), 0, -1], abs=1e-6)
    assert (found.plan, found.scope_count) == (EXACT, 4)
    assert found.hits[0].memory.embedding_model == MODEL


async def test_filters_and_limit_are_held(memories: Stub) -> None:
    agent_id = str(uuid4())
    new = [
        placed(towards(angle), agent_id=agent_id, key=str(angle), type=SKILL if angle % 20 else FACT)
        for angle in range(0, 100, 10)
    ]
    await memories.StoreMemories(batch(*new))

    async def keys(**fields: object) -> list[str]:
        found = await memories.SearchMemories(search(agent_id, towards(0), **fields))
        return [hit.memory.key for hit in found.hits]

    assert await keys(limit=3) == ["0", "10", "20"]
    assert await keys(types=[SKILL], limit=2) == ["10", "30"]
    assert await keys(types=[SKILL, FACT], limit=2) == ["0", "10"]
    assert await keys(min_score=math.cos(math.radians(25))) == ["0", "10", "20"]
    assert await keys(min_score=0.99, types=[SKILL]) == []
    assert await keys() == [str(angle) for angle in range(0, 100, 10)]


async def test_other_scopes_are_never_found(memories: Stub) -> None:
    agent_id = str(uuid4())
    await memories.StoreMemories(
        batch(placed(towards(0), agent_id=agent_id, user_id="bob"), placed(towards(0), user_id="ann"))
    )
    found = await memories.SearchMemories(search(agent_id, towards(0)))
    assert (len(found.hits), found.plan, found.scope_count) == (0, EXACT, 0)


async def test_vector_wins_over_text(memories: Stub) -> None:
    """The gateway is away in these tests: asking it would fail."""
    found = await memories.SearchMemories(search(str(uuid4()), towards(0), query="tea"))
    assert found.plan == EXACT


async def test_large_scope_is_walked_and_misses_little(large: tuple[Stub, str, list[list[float]]]) -> None:
    stub, agent_id, vectors = large
    right = 0
    for number in range(20):
        wanted = scattered(5_000 + number, about=vectors[number], spread=0.3)
        found = await stub.SearchMemories(search(agent_id, wanted))
        assert (found.plan, found.scope_count, len(found.hits)) == (HNSW, 600, 10)
        scores = [hit.score for hit in found.hits]
        assert scores == sorted(scores, reverse=True)
        right += len({hit.memory.key for hit in found.hits} & set(nearest(vectors, wanted, 10)))
    assert right >= 198  # of 200


async def test_each_scope_is_planned_by_its_own_count(large: tuple[Stub, str, list[list[float]]]) -> None:
    stub, agent_id, vectors = large
    # A third of the index: walking past all the others would cost more than comparing 300.
    bob = await stub.SearchMemories(search(agent_id, vectors[0], user_id="bob"))
    assert (bob.plan, bob.scope_count, len(bob.hits)) == (EXACT, 300, 10)
    few = await stub.SearchMemories(search(agent_id, vectors[0], user_id="bob", limit=2))
    assert (few.plan, len(few.hits)) == (HNSW, 2)
    none = await stub.SearchMemories(search(agent_id, vectors[0], user_id="eve"))
    assert (none.plan, none.scope_count) == (EXACT, 0)


@pytest.mark.parametrize(("limit", "matches"), [(5, 5), (12, 12), (50, 12)])
async def test_filtered_search_brings_as_many_as_match(
    large: tuple[Stub, str, list[list[float]]], limit: int, matches: int
) -> None:
    stub, agent_id, vectors = large
    found = await stub.SearchMemories(search(agent_id, vectors[7], types=[SKILL], limit=limit))
    assert found.plan == EXACT
    skills = [vectors[number] for number in range(0, 600, 50)]
    best = [str(50 * int(place)) for place in nearest(skills, vectors[7], limit)]
    assert [hit.memory.key for hit in found.hits] == best
    assert len(best) == matches


async def test_wide_filter_is_walked(large: tuple[Stub, str, list[list[float]]]) -> None:
    stub, agent_id, vectors = large
    found = await stub.SearchMemories(search(agent_id, vectors[50], types=[FACT], limit=10))
    assert (found.plan, len(found.hits)) == (HNSW, 10)
    assert {hit.memory.type for hit in found.hits} == {FACT}


async def test_walk_that_comes_back_short_is_done_again_whole(large: tuple[Stub, str, list[list[float]]]) -> None:
    stub, agent_id, vectors = large
    wanted = vectors[3]
    scores = sorted((math.fsum(a * b for a, b in zip(vector, wanted, strict=True)) for vector in vectors), reverse=True)
    least = (scores[4] + scores[5]) / 2
    found = await stub.SearchMemories(search(agent_id, wanted, min_score=least, limit=10))
    assert (found.plan, len(found.hits)) == (AGAIN, 5)
    assert [hit.memory.key for hit in found.hits] == nearest(vectors, wanted, 5)
    within = await stub.SearchMemories(search(agent_id, wanted, min_score=least, limit=4))
    assert (within.plan, len(within.hits)) == (HNSW, 4)


async def test_changed_type_moves_between_the_counts(large: tuple[Stub, str, list[list[float]]]) -> None:
    stub, _, vectors = large
    agent_id = str(uuid4())
    await stub.StoreMemories(batch(*[placed(vectors[n], agent_id=agent_id, key=str(n)) for n in range(4)]))
    await stub.StoreMemories(batch(placed(vectors[1], agent_id=agent_id, key="1", type=SKILL)))
    skills = await stub.SearchMemories(search(agent_id, vectors[0], types=[SKILL]))
    assert [hit.memory.key for hit in skills.hits] == ["1"]
    facts = await stub.SearchMemories(search(agent_id, vectors[0], types=[FACT]))
    assert len(facts.hits) == 3


async def test_deleted_and_changed_memories_are_not_found_by_a_walk(
    database_factory: Callable[[], Awaitable[ClonedDatabase]],
) -> None:
    agent_id = str(uuid4())
    async with (
        serve("memory", await database_factory(), exact_search_limit=5) as served,
        calling(served, uuid4()) as stub,
    ):
        new = [placed(towards(angle), agent_id=agent_id, key=str(angle)) for angle in range(100)]
        stored = await stub.StoreMemories(batch(*new))
        await stub.DeleteMemory(pb.DeleteMemoryRequest(memory_id=stored.results[0].memory.memory_id))
        await stub.StoreMemories(batch(placed(towards(170), agent_id=agent_id, key="1")))
        found = await stub.SearchMemories(search(agent_id, towards(0), limit=3))
        assert [hit.memory.key for hit in found.hits] == ["2", "3", "4"]
        assert found.plan == HNSW
