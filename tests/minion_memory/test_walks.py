"""Walks of the index: their first candidates may be of other types than asked for, or more than a reply holds."""

import re
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest_asyncio
from minion.memory.v1 import memory_pb2
from minion_memory.memories.store import packed, prepare
from minion_postgres import Connection
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import serve

from tests.minion_memory.stage import Stub, batch, calling, placed, scattered, search, towards

SKILL = memory_pb2.MEMORY_TYPE_SKILL
_FACTS, _SKILLS = 200, 400


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def walking(postgres: ClonedDatabase) -> AsyncIterator[Stub]:
    """A service that compares few memories, as a tenant of its own sees it; nobody else's are in the index."""
    async with (
        serve("memory", postgres, gateway_address="127.0.0.1:1", exact_search_limit=50) as served,
        calling(served, uuid4()) as stub,
    ):
        yield stub


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def agent_id(walking: Stub) -> str:
    """The agent of a scope whose facts stand around one place, and its skills around another."""
    agent_id = str(uuid4())
    near, far = towards(0), towards(90)
    facts = [placed(scattered(n, about=near, spread=0.5), agent_id=agent_id, key=f"fact {n}") for n in range(_FACTS)]
    skills = [
        placed(scattered(-n, about=far, spread=0.5), agent_id=agent_id, key=f"skill {n}", type=SKILL)
        for n in range(_SKILLS)
    ]
    for first in range(0, _FACTS + _SKILLS, 100):
        await walking.StoreMemories(batch(*(facts + skills)[first : first + 100]))
    return agent_id


@pytest_asyncio.fixture(loop_scope="session")
async def admin(postgres: ClonedDatabase) -> AsyncIterator[Connection]:
    """A connection that speaks pgvector."""
    opened = await asyncpg.connect(postgres.admin_dsn)
    await prepare(opened)
    yield opened
    await opened.close()


async def tenant_of(admin: Connection, agent_id: str) -> UUID | None:
    """Whose the scope of an agent is; None where there is no such scope."""
    found: UUID | None = await admin.fetchval(
        "SELECT tenant_id FROM memory.scope_counts WHERE agent_id = $1", UUID(agent_id)
    )
    return found


@asynccontextmanager
async def rolled_back(admin: Connection) -> AsyncIterator[None]:
    """Undoes what a block did."""
    transaction = admin.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


def wish(agent_id: str) -> str:
    """What asks for the ten memories of a scope that fit best."""
    asked: dict[str, Any] = {"agent_id": agent_id, "user_id": "ann", "said": "", "most": 10, "weights": [0.5] * 10}
    return orjson.dumps({**asked, "half_life": "30 days", "as_of": "2100-01-01T00:00:00Z"}).decode()


async def found_by(admin: Connection, function: str, agent_id: str, most_bytes: int) -> list[asyncpg.Record]:
    """What a function of the schema finds near the facts."""
    return await admin.fetch(
        f"SELECT * FROM memory.{function}($1, $2, 1::smallint, $3, 50, 50, 60, 20000, $4)",  # noqa: S608 - a name of ours
        await tenant_of(admin, agent_id),
        wish(agent_id),
        packed(array("f", towards(0))),
        most_bytes,
    )


async def test_walk_goes_on_where_its_first_candidates_are_of_other_types(walking: Stub, agent_id: str) -> None:
    found = await walking.SearchMemories(search(agent_id, towards(0), types=[SKILL]))
    assert found.plan == memory_pb2.SEARCH_PLAN_HNSW
    assert [hit.memory.type for hit in found.hits] == [SKILL] * 10


async def test_walk_that_brings_too_few_is_followed_by_comparing_all(walking: Stub, agent_id: str) -> None:
    found = await walking.SearchMemories(search(agent_id, towards(0), types=[SKILL], min_score=0.9))
    assert found.plan == memory_pb2.SEARCH_PLAN_HNSW_THEN_EXACT
    assert not found.hits


async def test_walk_brings_the_best_that_a_reply_holds(admin: Connection, agent_id: str) -> None:
    every = await found_by(admin, "retrieve_memories", agent_id, 1_000_000)
    assert [row["plan"] for row in every] == ["hnsw"] * 10
    largest = await admin.fetchval("SELECT max(byte_count) FROM memory.memories")
    some = await found_by(admin, "retrieve_memories", agent_id, 3 * largest)
    assert 3 <= len(some) < 10
    assert some == every[: len(some)]
    assert await found_by(admin, "retrieve_memories", agent_id, 1) == every[:1]


async def test_walk_brings_the_best_first_by_order_and_not_by_chance(admin: Connection, agent_id: str) -> None:
    plans: list[str] = []
    admin.add_log_listener(lambda _, message: plans.append(message.detail or ""))
    await admin.execute("SET debug_print_plan = on; SET client_min_messages = log")
    await found_by(admin, "retrieve_memories", agent_id, 1_000_000)
    # The statement that brings them: nodes of its plan, the outermost first.
    (outer,) = [plan for plan in plans if "{WINDOWAGG" in plan]
    assert [node for node in re.findall(r"\{([A-Z]+)\b", outer) if node in {"LIMIT", "SORT"}][:2] == ["LIMIT", "SORT"]


async def test_release_before_is_told_the_same(admin: Connection, agent_id: str) -> None:
    now = await found_by(admin, "retrieve_memories", agent_id, 1_000_000)
    before = await found_by(admin, "find_memories", agent_id, 1_000_000)
    assert len(before) == 10
    model = await admin.fetchval("SELECT name FROM memory.embedding_models WHERE model_id = 1")
    # What it reads that may not be NULL for it.
    empty = {"labels": "{}", "metadata": "{}", "source_sequences": [], "embedding_model": model}
    for row, known in zip(now, before, strict=True):
        times = dict.fromkeys(("update_time", "valid_from", "occur_time"), row["create_time"])
        filled = {name: (empty | times).get(name) if value is None else value for name, value in row.items()}
        assert filled == dict(known)
    nothing = await found_by(admin, "find_memories", str(uuid4()), 1_000_000)
    assert [(row["plan"], row["scope_count"], row["memory_id"]) for row in nothing] == [("exact", 0, None)]


async def test_release_before_is_given_no_null_and_the_same_values(admin: Connection, agent_id: str) -> None:
    first = (await found_by(admin, "find_memories", agent_id, 1_000_000))[0]["memory_id"]
    told = {"labels": '{"team": "red"}', "metadata": '{"a": [1]}', "source_sequences": [3, 4]}
    async with rolled_back(admin):
        await admin.execute(
            "UPDATE memory.memories SET labels = $2, metadata = $3, source_sequences = $4,"
            " valid_from = create_time - interval '1 day', occur_time = create_time - interval '2 days'"
            " WHERE memory_id = $1",
            *(first, *told.values()),
        )
        for name in ("retrieve_memories", "find_memories"):
            (row,) = [row for row in await found_by(admin, name, agent_id, 1_000_000) if row["memory_id"] == first]
            assert {column: row[column] for column in told} == told
            assert (row["create_time"] - row["valid_from"]).days == 1
            assert (row["create_time"] - row["occur_time"]).days == 2


async def test_a_memory_of_another_model_is_said_to_be_its(admin: Connection, agent_id: str) -> None:
    found = await found_by(admin, "retrieve_memories", agent_id, 1_000_000)
    assert {row["embedding_model"] for row in found} == {None}
    other = await admin.fetchval("SELECT name FROM memory.embedding_models WHERE model_id = 2")
    async with rolled_back(admin):
        await admin.execute("UPDATE memory.memories SET model_id = 2 WHERE memory_id = $1", found[0]["memory_id"])
        again = await found_by(admin, "retrieve_memories", agent_id, 1_000_000)
    assert [row["memory_id"] for row in again] == [row["memory_id"] for row in found]
    assert [row["embedding_model"] for row in again] == [other, *[None] * 9]


async def test_a_walk_of_a_model_that_has_none_brings_nothing(admin: Connection, agent_id: str) -> None:
    walked = await admin.fetchrow(
        "SELECT (memory.walk($1, $2, 'ann', NULL, $3, 10, 99::smallint)).*",
        *(await tenant_of(admin, agent_id), UUID(agent_id), packed(array("f", towards(0)))),
    )
    assert walked is not None
    assert (walked["ids"], walked["distances"]) == (None, None)


async def test_what_else_weighs_puts_a_farther_memory_first_where_all_are_compared(postgres: ClonedDatabase) -> None:
    agent_id = str(uuid4())
    near = [placed(towards(n / 10), agent_id=agent_id, key=str(n), importance=0.0) for n in range(250)]
    near[30].memory.importance = 1.0
    async with (
        serve("memory", postgres, gateway_address="127.0.0.1:1") as served,
        calling(served, uuid4()) as stub,
    ):
        for first in range(0, 250, 100):
            await stub.StoreMemories(batch(*near[first : first + 100]))
        found = await stub.SearchMemories(search(agent_id, towards(0), limit=1))
    assert found.plan == memory_pb2.SEARCH_PLAN_EXACT
    assert [hit.memory.key for hit in found.hits] == ["30"]
