"""ExtractMemories with the local model: from sessions over the wire to memories with their sources."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
import pytest_asyncio
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion.session.v1 import message_pb2
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_memory.extraction_stage import (
    CREATED,
    DELETED,
    DONE,
    UNCHANGED,
    House,
    Tenant,
    assistant,
    house,
    tool,
)

WORDINGS = {
    "user/name": ("My name is Ada Lovelace.", "Hi, I'm called Ada Lovelace!", "Please call me Ada Lovelace."),
    "user/home": ("I live in Paris.", "I'm based in Paris.", "My home is in Paris."),
    "user/occupation": ("I'm a nurse.", "I work as a nurse these days.", "My job is nurse."),
    "user/likes/green-tea": ("I love green tea.", "I really like green tea a lot.", "Well, I enjoy green tea!"),
    "user/allergy/peanut": ("I'm allergic to peanuts.", "I have a peanut allergy.", "I have an allergy to peanuts."),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(postgres: ClonedDatabase, model_cache: Path) -> AsyncIterator[House]:
    async with house(postgres, model_cache, follow_sessions=False) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def ours(stage: House) -> AsyncIterator[Tenant]:
    async with stage.tenant() as tenant:
        yield tenant


async def test_five_facts_in_three_wordings_are_five_memories_with_their_sources(ours: Tenant) -> None:
    agent_id = str(uuid4())
    # What was known of other things before stays as it is.
    unrelated = [
        ("user/likes/black-tea", "The user likes black tea."),
        ("user/allergy/pollen", "The user has an allergy to pollen."),
        ("user/dog-name", "The user's dog's name is Paris."),
        ("", "Ada Lovelace wrote about engines."),
    ]
    await ours.memories.StoreMemories(
        pb.StoreMemoriesRequest(
            memories=[
                pb.NewMemory(
                    memory=memory_pb2.Memory(
                        agent_id=agent_id, user_id="ann", key=key, type=memory_pb2.MEMORY_TYPE_FACT, content=content
                    )
                )
                for key, content in unrelated
            ]
        )
    )
    for wording in range(3):
        said = [wordings[wording] for wordings in WORDINGS.values()]
        session_id = await ours.session(*said, assistant("I see."), agent_id=agent_id)
        answer = await ours.extract(session_id, extractor="facts-1")
        assert answer.job.state == DONE
        assert {result.outcome for result in answer.results} == {CREATED if wording == 0 else UNCHANGED}
        assert answer.job.refused_count == 0
    kept = await ours.kept()
    assert sorted(memory.content for memory in kept if not memory.source.quote) == sorted(c for _, c in unrelated)
    assert not any(memory.HasField("valid_until") or memory.superseded_by for memory in kept)
    drawn = {memory.key: memory for memory in kept if memory.source.quote}
    assert drawn.keys() == WORDINGS.keys()
    for key, memory in drawn.items():
        assert memory.trust == memory_pb2.MEMORY_TRUST_USER
        assert memory.source.session_id
        assert memory.source.quote in WORDINGS[key][0]
        assert len(memory.source.message_sequences) == 1
        assert memory.embedding_model == "local/all-minilm-l6-v2"
        assert memory.labels["minion.extractor"] == "facts-1"


async def test_three_wordings_in_one_session_are_one_memory(ours: Tenant) -> None:
    session_id = await ours.session(*(wording for wordings in WORDINGS.values() for wording in wordings))
    answer = await ours.extract(session_id, extractor="facts-1")
    assert (answer.job.created_count, answer.job.first_sequence, answer.job.last_sequence) == (5, 1, 15)
    kept = {memory.key: list(memory.source.message_sequences) for memory in await ours.kept()}
    assert kept == {key: [3 * index + 1, 3 * index + 2, 3 * index + 3] for index, key in enumerate(WORDINGS)}


async def test_what_is_no_longer_so_ends_and_answers_as_of_then(ours: Tenant) -> None:
    agent_id = str(uuid4())
    first = await ours.session("I live in Berlin and I love tea.", agent_id=agent_id)
    await ours.extract(first, extractor="facts-1")
    second = await ours.session("I moved to Paris.", agent_id=agent_id)
    answer = await ours.extract(second, extractor="facts-1")
    assert [result.outcome for result in answer.results] == [DELETED, CREATED]
    assert (answer.job.created_count, answer.job.deleted_count) == (1, 1)
    ended, created = (result.memory for result in answer.results)
    assert (ended.content, created.content) == ("The user lives in Berlin.", "The user lives in Paris.")
    assert (ended.superseded_by, created.key) == (created.memory_id, "user/home")
    assert ended.valid_until == created.valid_from
    assert not created.HasField("valid_until")
    now = [memory.content for memory in await ours.kept(include_ended=False)]
    assert now == ["The user likes tea.", "The user lives in Paris."]
    revisions = await ours.memories.ListMemoryRevisions(pb.ListMemoryRevisionsRequest(memory_id=ended.memory_id))
    assert revisions.revisions[0].cause == memory_pb2.REVISION_CAUSE_EXTRACTED
    assert revisions.revisions[0].reason
    by_key = await ours.memories.GetMemoryByKey(
        pb.GetMemoryByKeyRequest(agent_id=agent_id, user_id="ann", key="user/home")
    )
    assert by_key.memory == created
    # The old stretch drawn again brings nothing back.
    again = await ours.extract(first, extractor="facts-1", first_sequence=1)
    assert {result.outcome for result in again.results} == {UNCHANGED}
    assert [memory.content for memory in await ours.kept(include_ended=False)] == now


async def test_what_was_drawn_once_is_not_drawn_again(ours: Tenant) -> None:
    session_id = await ours.session("My name is Ada.")
    request_id = str(uuid7())
    first = await ours.extract(session_id, extractor="facts-1", request_id=request_id)
    assert [result.outcome for result in first.results] == [CREATED]
    assert await ours.extract(session_id, extractor="facts-1", request_id=request_id) == first
    known = await ours.extract(session_id, extractor="facts-1")
    assert known.job == first.job
    assert [result.outcome for result in known.results] == [UNCHANGED]
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await ours.extract(session_id, extractor="facts-1", first_sequence=1, request_id=request_id)
    await ours.say(session_id, "I live in Rome.")
    next_ = await ours.extract(session_id, extractor="facts-1")
    assert (next_.job.first_sequence, next_.job.last_sequence) == (2, 2)
    assert len(await ours.jobs(session_id)) == 2


async def test_a_stretch_without_an_end_is_of_as_many_as_a_job_may_read(ours: Tenant) -> None:
    # Nothing that an extractor takes: this is about how many messages it reads.
    told = message_pb2.Message(role=message_pb2.MESSAGE_ROLE_SYSTEM, parts=[message_pb2.Part(text="Be kind.")])
    session_id = await ours.session()
    for count in (*[100] * 10, 2):
        await ours.say(session_id, *[told] * count)
    for first, last in ((1, 1_000), (2, 1_001), (3, 1_002)):
        job = (await ours.extract(session_id, extractor="episodes-1", first_sequence=first)).job
        assert (job.first_sequence, job.last_sequence, job.state) == (first, last, DONE)


async def test_nothing_said_is_nothing_drawn(ours: Tenant) -> None:
    empty = await ours.session()
    answer = await ours.extract(empty, extractor="facts-1")
    assert (answer.job.state, answer.job.last_sequence, list(answer.results)) == (DONE, 0, [])
    plain = await ours.session("What time is it?", assistant("Noon."))
    answer = await ours.extract(plain, extractor="facts-1")
    assert (answer.job.state, list(answer.results)) == (DONE, [])


async def test_a_tool_and_the_assistant_are_not_the_user(ours: Tenant) -> None:
    said = "My name is Mallory and I live in Rome."
    session_id = await ours.session("Who am I?", *tool(said), assistant(said))
    await ours.extract(session_id, extractor="facts-1")
    assert await ours.kept() == []


async def test_episodes_are_what_was_said(ours: Tenant) -> None:
    agent_id = str(uuid4())
    session_id = await ours.session("Good evening.", *tool("42"), assistant("And to you."), agent_id=agent_id)
    answer = await ours.extract(session_id, extractor="episodes-1")
    assert answer.job.created_count == 2
    one, other = await ours.kept()
    assert [one.key, other.key] == [f"episode/{session_id}/1", f"episode/{session_id}/4"]
    assert [one.content, other.content] == ["Good evening.", "And to you."]
    assert [one.trust, other.trust] == [memory_pb2.MEMORY_TRUST_USER, memory_pb2.MEMORY_TRUST_TOOL]
    assert [one.speaker, other.speaker] == ["user", "assistant"]
    assert one.type == other.type == memory_pb2.MEMORY_TYPE_CONTEXT
    assert "minion.episode" in one.labels
    assert one.occur_time.seconds > 0
    assert (one.source.session_id, list(one.source.message_sequences)) == (session_id, [1])
    assert one.embedding_model
    again = await ours.extract(session_id, extractor="episodes-1", first_sequence=1, last_sequence=4)
    assert [result.outcome for result in again.results] == [UNCHANGED] * 2
    part = await ours.extract(session_id, extractor="episodes-1", first_sequence=1, last_sequence=2)
    assert [result.outcome for result in part.results] == [UNCHANGED]


async def test_what_there_is_not(stage: House, ours: Tenant) -> None:
    async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        await ours.extract(str(uuid4()), extractor="facts-1")
    session_id = await ours.session("My name is Ada.")
    async with refused(grpc.StatusCode.NOT_FOUND, "EXTRACTOR_NOT_FOUND") as refusal:
        await ours.extract(session_id, extractor="facts-99")
    assert refusal.metadata["extractor"] == "facts-99"
    async with stage.tenant() as theirs:
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
            await theirs.extract(session_id, extractor="facts-1")
        assert await theirs.kept() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"session_id": ""},
        {"session_id": "x"},
        {"extractor": "x" * 64},
        {"first_sequence": -1},
        {"last_sequence": -1},
        {"first_sequence": 3, "last_sequence": 2},
        {"first_sequence": 1, "last_sequence": 1_001},
        {"request_id": "x"},
    ],
)
async def test_each_limit(ours: Tenant, fields: dict[str, object]) -> None:
    request = {"session_id": str(uuid4()), "extractor": "facts-1", **fields}
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
        await ours.extract(**request)  # type: ignore[arg-type]


async def test_the_agent_s_extractor_is_the_default(ours: Tenant) -> None:
    agent_id = await ours.agent(extractor="episodes-1")
    session_id = await ours.session("Good evening.", agent_id=agent_id)
    assert (await ours.extract(session_id)).job.extractor == "episodes-1"
    plain = await ours.session("Good evening.", agent_id=await ours.agent())
    assert (await ours.extract(plain)).job.extractor == "facts-1"
