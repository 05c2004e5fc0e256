"""SearchMemories: meaning and words, neighbours and signs, filters, and what was brought."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from google.protobuf import struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_postgres import Migrations
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import serve

from tests.minion_memory.stage import MODEL, Stub, batch, calling, memory, placed, search, towards

EXACT, LEXICAL = memory_pb2.SEARCH_PLAN_EXACT, memory_pb2.SEARCH_PLAN_LEXICAL
CONTEXT, FACT = memory_pb2.MEMORY_TYPE_CONTEXT, memory_pb2.MEMORY_TYPE_FACT
USER, TOOL = memory_pb2.MEMORY_TRUST_USER, memory_pb2.MEMORY_TRUST_TOOL

# A talk between two that nobody had, a turn a line: who, and what was said.
TALK = [
    ("Ann", "Hello Bob, it rained all morning here."),
    ("Bob", "Hi Ann! Where did you spend the summer?"),
    ("Ann", "By the lake, with my sister's children. We built a raft."),
    ("Bob", "That sounds like fun! Did anybody fall in?"),
    ("Ann", "Only the dog."),
    ("Bob", "I started to learn the cello last week."),
    ("Ann", "Wow, the cello! Who teaches you?"),
    ("Bob", "A retired player from the opera, Mrs. Vance."),
]


def moment(when: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(when)
    return stamp


def struct(**fields: Any) -> struct_pb2.Struct:
    made = struct_pb2.Struct()
    made.update(fields)
    return made


def unplaced(**fields: Any) -> pb.NewMemory:
    return pb.NewMemory(memory=memory(**fields))


async def talk(memories: Stub, agent_id: str, session_id: str) -> None:
    """Stores the talk as episodes with no vectors: the gateway is away in these tests."""
    turns = [
        unplaced(
            agent_id=agent_id,
            key=str(number),
            type=CONTEXT,
            content=said,
            speaker=speaker,
            labels={"minion.episode": "true"},
            source=memory_pb2.MemorySource(session_id=session_id, message_sequences=[number]),
        )
        for number, (speaker, said) in enumerate(TALK, 1)
    ]
    await memories.StoreMemories(batch(*turns))


def asked(agent_id: str, query: str, **fields: Any) -> pb.SearchMemoriesRequest:
    return pb.SearchMemoriesRequest(agent_id=agent_id, user_id="ann", query=query, **fields)


def keys(found: pb.SearchMemoriesResponse) -> list[str]:
    return [hit.memory.key for hit in found.hits]


async def test_query_that_cannot_be_embedded_is_searched_by_its_words(memories: Stub) -> None:
    agent_id = str(uuid4())
    await talk(memories, agent_id, str(uuid4()))
    found = await memories.SearchMemories(asked(agent_id, "Who teaches the cello to Bob?"))
    assert (found.plan, found.scope_count) == (LEXICAL, len(TALK))
    assert set(keys(found)[:3]) == {"6", "7", "8"}
    assert not any(hit.HasField("similarity") for hit in found.hits)
    # The answer shares no word with the question, but stands after a turn that does.
    answer = next(hit for hit in found.hits if hit.memory.key == "8")
    assert answer.explanation.lexical == 0
    assert answer.explanation.neighborhood > 0
    assert "1" not in keys(found)


async def test_words_are_never_joined_by_and(memories: Stub) -> None:
    agent_id = str(uuid4())
    await memories.StoreMemories(batch(unplaced(agent_id=agent_id, content="She keeps two goats.")))
    found = await memories.SearchMemories(asked(agent_id, "How many goats, sheep, cows and horses does the farm hold?"))
    assert len(found.hits) == 1


async def test_nothing_but_common_words_finds_nothing(memories: Stub) -> None:
    agent_id = str(uuid4())
    await talk(memories, agent_id, str(uuid4()))
    found = await memories.SearchMemories(asked(agent_id, "who is it?"))
    assert (found.plan, len(found.hits), found.scope_count) == (LEXICAL, 0, len(TALK))


@pytest.mark.parametrize(
    "query",
    ["' | !tea & (", "tea:*", r"\tea' \\", "tea\ttea\n", "'); DROP TABLE memory.memories; --", "%s $1 {0}", "té ☕"],
)
async def test_hostile_query_is_a_query(memories: Stub, query: str) -> None:
    agent_id = str(uuid4())
    await memories.StoreMemories(
        batch(unplaced(agent_id=agent_id, content="Tea, té, it's \\tea, drop table, 0 and 1."))
    )
    found = await memories.SearchMemories(asked(agent_id, query))
    assert (found.plan, len(found.hits)) == (LEXICAL, 1)


async def test_long_query_is_a_query(memories: Stub) -> None:
    agent_id = str(uuid4())
    await memories.StoreMemories(batch(unplaced(agent_id=agent_id, content="Extraordinarily green.")))
    query = " ".join(f"w{number}" for number in range(1_400))[:8_100] + " extraordinarily"
    assert len((await memories.SearchMemories(asked(agent_id, query))).hits) == 1


async def test_rare_words_weigh_more_than_common_ones(memories: Stub) -> None:
    agent_id = str(uuid4())
    said = [f"The garden in the morning, number {number}." for number in range(20)] + ["A heron in the pond."]
    await memories.StoreMemories(
        batch(*[unplaced(agent_id=agent_id, key=str(number), content=text) for number, text in enumerate(said)])
    )
    found = await memories.SearchMemories(asked(agent_id, "heron garden morning", limit=1))
    assert keys(found) == ["20"]


async def test_vector_and_words_add_up(memories: Stub) -> None:
    agent_id = str(uuid4())
    await memories.StoreMemories(
        batch(
            placed(towards(10), agent_id=agent_id, key="near", content="Something else."),
            placed(towards(30), agent_id=agent_id, key="both", content="A blue bicycle."),
            placed(towards(90), agent_id=agent_id, key="words", content="A bicycle, blue as well."),
            unplaced(agent_id=agent_id, key="unplaced", content="The bicycle."),
            unplaced(agent_id=agent_id, key="neither", content="Nothing."),
        )
    )
    found = await memories.SearchMemories(search(agent_id, towards(0), query="blue bicycle"))
    assert found.plan == EXACT
    assert keys(found)[0] == "both"
    # What has neither a vector nor a word in common was compared by nothing.
    assert set(keys(found)) == {"near", "both", "words", "unplaced"}
    for hit in found.hits:
        parts = hit.explanation
        total = sum(getattr(parts, field.name) for field in parts.DESCRIPTOR.fields)
        assert hit.score == pytest.approx(total)
        if hit.HasField("similarity"):
            assert parts.semantic == pytest.approx(hit.similarity / 2)
        else:
            assert parts.semantic == 0
    by_vector = await memories.SearchMemories(search(agent_id, towards(0)))
    assert keys(by_vector) == ["near", "both", "words"]
    assert {hit.explanation.lexical for hit in by_vector.hits} == {0}


async def test_least_similarity_spares_what_has_words_alone(memories: Stub) -> None:
    agent_id = str(uuid4())
    await memories.StoreMemories(
        batch(
            placed(towards(10), agent_id=agent_id, key="near", content="Red."),
            placed(towards(80), agent_id=agent_id, key="far", content="A kettle."),
            unplaced(agent_id=agent_id, key="unplaced", content="The kettle."),
        )
    )
    found = await memories.SearchMemories(search(agent_id, towards(0), query="kettle", min_score=0.9))
    assert set(keys(found)) == {"near", "unplaced"}


async def test_turns_take_from_their_neighbours_whatever_the_filter(memories: Stub) -> None:
    agent_id, session_id = str(uuid4()), str(uuid4())
    await talk(memories, agent_id, session_id)
    await talk_elsewhere(memories, agent_id)
    found = await memories.SearchMemories(asked(agent_id, "the summer", limit=20))
    shares = {hit.memory.key: hit.explanation for hit in found.hits}
    assert shares["2"].lexical > 0
    # What comes after takes three times as much as what stands before.
    assert shares["3"].neighborhood == pytest.approx(0.3 * shares["2"].lexical)
    assert shares["1"].neighborhood == pytest.approx(0.1 * shares["2"].lexical)
    assert "elsewhere" not in shares


async def talk_elsewhere(memories: Stub, agent_id: str) -> None:
    source = memory_pb2.MemorySource(session_id=str(uuid4()), message_sequences=[3])
    await memories.StoreMemories(
        batch(unplaced(agent_id=agent_id, key="elsewhere", type=CONTEXT, content="Only the cat.", source=source))
    )


async def test_signs_of_the_query_decide_between_what_fits(memories: Stub) -> None:
    agent_id = str(uuid4())
    may, june = datetime(2023, 5, 8, tzinfo=UTC), datetime(2023, 6, 9, tzinfo=UTC)
    said = [
        ("bob", "Bob Stone", "I bought a boat.", may),
        ("ann", "Ann", "I bought a boat.", june),
        ("asked", "Ann", "You bought a boat?", june),
        ("dated", "Ann", "I bought a boat yesterday.", june),
    ]
    await memories.StoreMemories(
        batch(
            *[
                unplaced(agent_id=agent_id, key=key, speaker=speaker, content=text, occur_time=moment(when))
                for key, speaker, text, when in said
            ]
        )
    )

    async def cues(query: str) -> dict[str, float]:
        found = await memories.SearchMemories(asked(agent_id, query))
        return {hit.memory.key: round(hit.explanation.cues, 6) for hit in found.hits}

    assert await cues("boat") == {"bob": 0, "ann": 0, "asked": -0.1, "dated": 0}
    assert await cues("Bob's boat") == {"bob": 0.2, "ann": 0, "asked": -0.1, "dated": 0}
    assert await cues("The boat of Ann and of Bob Stone") == {"bob": 0, "ann": 0, "asked": -0.1, "dated": 0}
    assert await cues("When a boat?") == {"bob": 0, "ann": 0, "asked": -0.1, "dated": 0.2}
    assert await cues("The boat of May") == {"bob": 0.2, "ann": 0, "asked": -0.1, "dated": 0}
    assert await cues("The boat of May 2022") == {"bob": 0, "ann": 0, "asked": -0.1, "dated": 0}


async def test_recency_importance_and_trust_decide_between_equals(memories: Stub) -> None:
    agent_id = str(uuid4())
    now = datetime.now(UTC)
    await memories.StoreMemories(
        batch(
            placed(towards(0), agent_id=agent_id, key="plain", trust=USER),
            placed(towards(0), agent_id=agent_id, key="important", trust=USER, importance=1.0),
            placed(towards(0), agent_id=agent_id, key="old", trust=USER, occur_time=moment(now - timedelta(days=30))),
            placed(towards(0), agent_id=agent_id, key="tool", trust=TOOL),
        )
    )
    found = await memories.SearchMemories(search(agent_id, towards(0)))
    assert keys(found) == ["important", "plain", "old", "tool"]
    shares = {hit.memory.key: hit.explanation for hit in found.hits}
    assert shares["old"].recency == pytest.approx(shares["plain"].recency / 2, rel=0.01)
    assert (shares["tool"].trust, shares["plain"].trust) == (0, 0.05)


@pytest.mark.parametrize("year", [1, 1930, 2_200, 9_999])
async def test_memories_of_any_age_are_weighed(memories: Stub, year: int) -> None:
    agent_id = str(uuid4())
    said = moment(datetime(year, 5, 1, tzinfo=UTC))
    # So from the beginning of time on, whatever it was said: else what is said in the future is not so yet.
    new = placed(towards(0), agent_id=agent_id, occur_time=said, valid_from=moment(datetime(1, 1, 1, tzinfo=UTC)))
    await memories.StoreMemories(batch(new))
    for at in (None, moment(datetime(9_999, 12, 31, tzinfo=UTC))):
        [hit] = (await memories.SearchMemories(search(agent_id, towards(0), as_of=at))).hits
        assert 0 <= hit.explanation.recency <= 0.05


async def test_each_filter_is_held(memories: Stub) -> None:
    agent_id, session_id = str(uuid4()), str(uuid4())
    now = datetime.now(UTC).replace(microsecond=0)
    hostile = "'; DROP TABLE memory.memories; --"
    marks: dict[str, dict[str, Any]] = {
        "labelled": {"labels": {"team": "red", hostile: "$1"}},
        "noted": {"metadata": struct(**{hostile: {'a"b': [1, 2]}, "other": 1})},
        "drawn": {"source": memory_pb2.MemorySource(session_id=session_id, message_sequences=[4])},
        "told": {"trust": TOOL},
        "early": {"occur_time": moment(now - timedelta(days=9))},
        "ended": {"valid_from": moment(now - timedelta(days=5)), "valid_until": moment(now - timedelta(days=2))},
        "coming": {"valid_from": moment(now + timedelta(days=2))},
        "plain": {},
    }
    new = [placed(towards(0), agent_id=agent_id, key=key, **fields) for key, fields in marks.items()]
    await memories.StoreMemories(batch(*new))

    async def found(**fields: Any) -> set[str]:
        return set(keys(await memories.SearchMemories(search(agent_id, towards(0), **fields))))

    current = set(marks) - {"ended", "coming"}
    assert await found() == current
    assert await found(labels={"team": "red"}) == {"labelled"}
    assert await found(labels={"team": "red", hostile: "$1"}) == {"labelled"}
    assert await found(labels={"team": "blue"}) == set()
    assert await found(metadata=struct(**{hostile: {'a"b': [2]}})) == {"noted"}
    assert await found(metadata=struct(**{hostile: {'a"b': [3]}})) == set()
    assert await found(session_id=session_id) == {"drawn"}
    assert await found(session_id=str(uuid4())) == set()
    assert await found(trusts=[TOOL]) == {"told"}
    assert await found(trusts=[TOOL, USER]) == {"told"}
    assert await found(occurred_before=moment(now - timedelta(days=8))) == {"early"}
    assert await found(occurred_after=moment(now - timedelta(days=8))) == current - {"early"}
    assert await found(as_of=moment(now - timedelta(days=3))) == {"early", "ended"}
    assert await found(as_of=moment(now + timedelta(days=3))) == set(marks) - {"ended"}
    assert await found(labels={"team": "red"}, trusts=[TOOL]) == set()


async def test_what_was_superseded_is_left_out_unless_its_time_is_asked_for(
    memories: Stub, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    agent_id = str(uuid4())
    stored = await memories.StoreMemories(batch(placed(towards(0), agent_id=agent_id, key="old")))
    admin = await asyncpg.connect(postgres.admin_dsn)
    await admin.execute(
        "UPDATE memory.memories SET superseded_by = $1 WHERE tenant_id = $2 AND memory_id = $3",
        *(uuid4(), tenant_id, UUID(stored.results[0].memory.memory_id)),
    )
    await admin.close()
    assert keys(await memories.SearchMemories(search(agent_id, towards(0)))) == []
    then = moment(datetime.now(UTC))
    assert keys(await memories.SearchMemories(search(agent_id, towards(0), as_of=then))) == ["old"]


async def test_what_will_be_superseded_is_so_until_then(memories: Stub) -> None:
    agent_id, now = str(uuid4()), datetime.now(UTC)
    then, later = moment(now + timedelta(days=30)), str(uuid4())
    old = placed(towards(0), agent_id=agent_id, key="old", valid_until=then, superseded_by=later)
    new = placed(towards(0), agent_id=agent_id, key="new", valid_from=then, memory_id=later)
    await memories.ImportMemories(pb.ImportMemoriesRequest(memory=memory) for memory in (old, new))
    for about in ({"vector": search(agent_id, towards(0)).vector}, {"query": "Tea?"}):
        request = pb.SearchMemoriesRequest(agent_id=agent_id, user_id="ann", **about)
        assert keys(await memories.SearchMemories(request)) == ["old"]
        request.as_of.CopyFrom(then)
        assert keys(await memories.SearchMemories(request)) == ["new"]


@pytest.mark.parametrize("limit", [0, 5_000])
async def test_what_is_next_to_nothing_weighs_nothing(postgres: ClonedDatabase, limit: int) -> None:
    """By candidates, and weighed whole."""
    agent_id = str(uuid4())
    async with serve("memory", postgres, exact_search_limit=limit) as served, calling(served, uuid4()) as stub:
        for key, values in (("one", (5e-324, 1.0)), ("two", (1e-200, 1e-200))):
            new = placed(towards(0), agent_id=agent_id, key=key, importance=values[0], confidence=values[1])
            await stub.StoreMemories(batch(new))
        for about in ({"vector": search(agent_id, towards(0)).vector}, {"query": "Tea?"}):
            request = pb.SearchMemoriesRequest(agent_id=agent_id, user_id="ann", limit=2, **about)
            assert [hit.explanation.importance for hit in (await stub.SearchMemories(request)).hits] == [0, 0]


async def test_other_tenants_words_are_never_found(memories: Stub, strangers: Stub) -> None:
    agent_id = str(uuid4())
    await memories.StoreMemories(batch(unplaced(agent_id=agent_id, content="A narwhal.", speaker="Nora")))
    await memories.StoreMemories(batch(unplaced(agent_id=agent_id, user_id="bob", content="A narwhal.")))
    theirs = await strangers.SearchMemories(asked(agent_id, "Nora's narwhal"))
    assert (len(theirs.hits), theirs.scope_count) == (0, 0)
    assert len((await memories.SearchMemories(asked(agent_id, "narwhal"))).hits) == 1


@pytest.mark.parametrize("limit", [0, 5_000])
async def test_words_are_found_by_every_plan(postgres: ClonedDatabase, limit: int) -> None:
    """A scope of 300: candidates are chosen, by index or by comparing, and neighbours come along."""
    agent_id, session_id = str(uuid4()), str(uuid4())
    async with serve("memory", postgres, exact_search_limit=limit) as served, calling(served, uuid4()) as stub:
        for start in range(0, 300, 100):
            new = [
                placed(
                    towards(number % 60, plane=number % 5),
                    agent_id=agent_id,
                    key=str(number),
                    type=CONTEXT,
                    content=f"Turn {number} of the talk" + (", about a zeppelin." if number == 250 else "."),
                    source=memory_pb2.MemorySource(session_id=session_id, message_sequences=[number + 1]),
                )
                for number in range(start, start + 100)
            ]
            await stub.StoreMemories(batch(*new))
        found = await stub.SearchMemories(search(agent_id, towards(90, plane=50), query="the zeppelin", limit=3))
        assert keys(found)[:2] == ["250", "251"]
        assert len(found.hits) == 3
        everything = await stub.SearchMemories(search(agent_id, towards(0), query="zeppelin", limit=100))
        assert len(everything.hits) == 100
        labelled = await stub.SearchMemories(search(agent_id, towards(0), labels={"none": "x"}))
        assert len(labelled.hits) == 0


async def test_hits_are_counted_in_batches_and_weigh(postgres: ClonedDatabase) -> None:
    agent_id, tenant_id = str(uuid4()), uuid4()
    async with serve("memory", postgres, access_write_seconds=3_600) as served, calling(served, tenant_id) as stub:
        stored = await stub.StoreMemories(
            batch(*[placed(towards(angle), agent_id=agent_id, key=str(angle)) for angle in (0, 90)])
        )
        for _ in range(3):
            await stub.SearchMemories(search(agent_id, towards(0), limit=1))
        gone = await stub.StoreMemories(batch(placed(towards(45), agent_id=agent_id, key="gone")))
        await stub.SearchMemories(search(agent_id, towards(45), limit=1))
        await stub.DeleteMemory(pb.DeleteMemoryRequest(memory_id=gone.results[0].memory.memory_id))
        ids = [result.memory.memory_id for result in stored.results]
        before = (await stub.GetMemory(pb.GetMemoryRequest(memory_id=ids[0]))).memory
        assert (before.access_count, before.HasField("access_time")) == (0, False)
    # It was written while the service stopped.
    async with serve("memory", postgres) as served, calling(served, tenant_id) as stub:
        read = [(await stub.GetMemory(pb.GetMemoryRequest(memory_id=id_))).memory for id_ in ids]
        assert [one.access_count for one in read] == [3, 0]
        assert [one.HasField("access_time") for one in read] == [True, False]
        assert (read[0].revision, read[0].etag) == (before.revision, before.etag)
        found = await stub.SearchMemories(search(agent_id, towards(0)))
        shares = {hit.memory.key: hit.explanation.access for hit in found.hits}
        assert shares["0"] == pytest.approx(0.01 * 3 / 103)
        assert shares["90"] == 0


async def test_model_of_the_hits_is_told(memories: Stub) -> None:
    agent_id = str(uuid4())
    await memories.StoreMemories(
        batch(placed(towards(0), agent_id=agent_id), unplaced(agent_id=agent_id, content="x y"))
    )
    found = await memories.SearchMemories(search(agent_id, towards(0), query="xylophone"))
    assert [hit.memory.embedding_model for hit in found.hits] == [MODEL]


async def test_memories_of_the_release_before_are_found(
    database_factory: Callable[[], Awaitable[ClonedDatabase]],
) -> None:
    """The migration gives them words and indexes, whatever was stored."""
    database = await database_factory()
    agent_id, tenant_id = str(uuid4()), uuid4()
    async with serve("memory", database) as served, calling(served, tenant_id) as stub:
        await stub.StoreMemories(batch(placed(towards(0), agent_id=agent_id, content="A zeppelin.")))
    migrations = Migrations("memory", resources.files("minion_memory") / "migrations")
    names = [step.name for step in migrations.steps]
    back = len(names) - next(place for place, name in enumerate(names) if name.endswith("_retrieval"))
    dsn = database.dsn("memory", "owner")
    await migrations.down(dsn, steps=back)
    admin = await asyncpg.connect(database.admin_dsn)
    index = "SELECT pg_get_indexdef('memory.memory_vectors_1_hnsw'::regclass)"
    assert "vector_cosine_ops" in await admin.fetchval(index)
    assert "halfvec" not in await admin.fetchval(index)
    await migrations.up(dsn)
    assert "halfvec_cosine_ops" in await admin.fetchval(index)
    await admin.close()
    async with (
        serve("memory", database, exact_search_limit=0) as served,
        calling(served, tenant_id) as stub,
    ):
        found = await stub.SearchMemories(search(agent_id, towards(10), query="zeppelins", limit=1))
        assert found.plan == memory_pb2.SEARCH_PLAN_EXACT
        assert found.hits[0].explanation.lexical > 0
        assert found.hits[0].similarity > 0.98
