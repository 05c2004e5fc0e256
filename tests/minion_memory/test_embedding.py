"""Texts that come without a vector are embedded by the gateway's InferenceService."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_testing.errors import refused
from minion_testing.fake_provider import FakeProvider
from minion_testing.postgres import ClonedDatabase
from minion_testing.provider_script import Fault, FaultKind
from minion_testing.serving import Served, serve
from uuid_utils.compat import uuid7

from tests.minion_memory.gateway_stage import Gateway, inference
from tests.minion_memory.stage import MODEL, Stub, batch, calling, memory, placed, search, towards

OPENAI = "openai/text-embedding-3-small"
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as provider:
        yield provider


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(fake: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """The gateway's models: the local one, and OpenAI's behind a faked wire."""
    cache = tmp_path_factory.mktemp("models")
    async with inference(model_cache=cache, openai_base_url=fake.base_url, provider_attempts=1) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: ClonedDatabase, gateway: Gateway) -> AsyncIterator[Served]:
    """The memory service with the local model."""
    async with serve(
        "memory", postgres, gateway_address=gateway.address, embedding_poll_seconds=3_600, embed_seconds=60
    ) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="session")
async def by_openai(postgres: ClonedDatabase, gateway: Gateway, tenant_id: UUID) -> AsyncIterator[Stub]:
    """The memory service with OpenAI's model."""
    async with (
        serve(
            "memory",
            postgres,
            gateway_address=gateway.address,
            default_embedding_model=OPENAI,
            embedding_poll_seconds=3_600,
            embed_seconds=60,
        ) as served,
        calling(served, tenant_id) as stub,
    ):
        yield stub


def unplaced(**fields: object) -> pb.NewMemory:
    return pb.NewMemory(memory=memory(**fields))


async def waiting(database: ClonedDatabase, tenant_id: UUID) -> set[str]:
    """The memories of a tenant that are listed as having no vector."""
    connection = await asyncpg.connect(database.admin_dsn)
    try:
        rows = await connection.fetch(
            "SELECT memory_id FROM memory.unembedded_memories WHERE tenant_id = $1", tenant_id
        )
    finally:
        await connection.close()
    return {str(row["memory_id"]) for row in rows}


async def test_what_was_said_is_found_by_other_words(memories: Stub, gateway: Gateway, tenant_id: UUID) -> None:
    agent_id = str(uuid4())
    stored = await memories.StoreMemories(
        batch(
            unplaced(agent_id=agent_id, content="Ann drinks green tea every morning."),
            unplaced(agent_id=agent_id, content="Her car is an old red Volvo."),
            unplaced(agent_id=agent_id, content="She was born in Bergen, Norway."),
        )
    )
    assert {result.memory.embedding_model for result in stored.results} == {MODEL}
    found = await memories.SearchMemories(
        pb.SearchMemoriesRequest(agent_id=agent_id, user_id="ann", query="Which beverage does she like?", limit=1)
    )
    assert [hit.memory.content for hit in found.hits] == ["Ann drinks green tea every morning."]
    identity, _ = gateway.calls[-1]
    assert (identity.principal, identity.tenant_id, identity.origin) == ("service:memory", tenant_id, "key:test")


async def test_given_and_embedded_vectors_go_together(memories: Stub, gateway: Gateway) -> None:
    agent_id = str(uuid4())
    before = len(gateway.calls)
    stored = await memories.StoreMemories(
        batch(
            unplaced(agent_id=agent_id, content="Ann drinks tea."),
            placed(towards(0), agent_id=agent_id, key="given"),
            unplaced(agent_id=agent_id, content="Ann drives a car."),
        )
    )
    assert [result.memory.key == "given" for result in stored.results] == [False, True, False]
    assert len(gateway.calls) == before + 1
    found = await memories.SearchMemories(search(agent_id, towards(0), limit=1))
    assert [hit.memory.key for hit in found.hits] == ["given"]
    by_text = await memories.SearchMemories(
        pb.SearchMemoriesRequest(agent_id=agent_id, user_id="ann", query="Ann drives a car.", limit=1)
    )
    assert [hit.memory.content for hit in by_text.hits] == ["Ann drives a car."]
    assert by_text.hits[0].similarity == pytest.approx(1, abs=1e-5)


async def test_the_same_text_again_is_unchanged(memories: Stub) -> None:
    request = batch(unplaced(agent_id=str(uuid4()), content="Ann drinks tea."))
    first = (await memories.StoreMemories(request)).results[0]
    again = (await memories.StoreMemories(request)).results[0]
    assert again.outcome == memory_pb2.STORE_OUTCOME_UNCHANGED
    assert again.memory == first.memory


async def test_new_text_under_a_key_is_found_by_its_new_meaning(memories: Stub) -> None:
    agent_id = str(uuid4())
    await memories.StoreMemories(batch(unplaced(agent_id=agent_id, key="car", content="Ann drives a red Volvo.")))
    moved = await memories.StoreMemories(batch(unplaced(agent_id=agent_id, key="car", content="Ann rides a bicycle.")))
    assert moved.results[0].outcome == memory_pb2.STORE_OUTCOME_UPDATED
    found = await memories.SearchMemories(
        pb.SearchMemoriesRequest(agent_id=agent_id, user_id="ann", query="Ann rides a bicycle.")
    )
    assert [hit.similarity for hit in found.hits] == [pytest.approx(1, abs=1e-5)]


async def test_replay_embeds_nothing(memories: Stub, gateway: Gateway) -> None:
    request = batch(unplaced(content="Ann drinks tea."), request_id=uuid7())
    first = await memories.StoreMemories(request)
    before = len(gateway.calls)
    assert await memories.StoreMemories(request) == first
    assert len(gateway.calls) == before


async def test_a_remote_model_is_asked_through_the_gateway(by_openai: Stub, fake: FakeProvider) -> None:
    agent_id = str(uuid4())
    stored = await by_openai.StoreMemories(batch(unplaced(agent_id=agent_id, content="Ann drinks tea.")))
    assert stored.results[0].memory.embedding_model == OPENAI
    found = await by_openai.SearchMemories(
        pb.SearchMemoriesRequest(agent_id=agent_id, user_id="ann", query="Ann drinks tea.")
    )
    assert found.hits[0].similarity == pytest.approx(1, abs=1e-5)
    assert fake.ledger.asked[-1].body["input"] == ["Ann drinks tea."]


@pytest.mark.parametrize(
    "fault",
    [Fault(FaultKind.SERVER_ERROR), Fault(FaultKind.RATE_LIMITED, seconds=7), Fault(FaultKind.KEY_REFUSED)],
    ids=lambda fault: fault.kind.value,
)
async def test_failing_provider_leaves_texts_without_a_vector(
    by_openai: Stub, fake: FakeProvider, postgres: ClonedDatabase, tenant_id: UUID, fault: Fault
) -> None:
    agent_id = str(uuid4())
    # UNAVAILABLE from the gateway is tried again: the fault must last.
    fake.push(*[fault] * 4)
    try:
        stored = await by_openai.StoreMemories(
            batch(placed(towards(0), agent_id=agent_id, key="given"), unplaced(agent_id=agent_id, content="Tea."))
        )
    finally:
        fake.reset()
    assert [result.memory.embedding_model for result in stored.results] == [MODEL, ""]
    listed = await by_openai.ListMemories(pb.ListMemoriesRequest(agent_id=agent_id))
    assert {memory.memory_id: memory for memory in listed.memories} == {
        result.memory.memory_id: result.memory for result in stored.results
    }
    assert await waiting(postgres, tenant_id) == {stored.results[1].memory.memory_id}


async def test_stalling_provider_holds_a_store_up_for_so_long_and_no_longer(
    postgres: ClonedDatabase, gateway: Gateway, fake: FakeProvider
) -> None:
    request = batch(unplaced())
    async with (
        serve(
            "memory", postgres, gateway_address=gateway.address, default_embedding_model=OPENAI, embed_seconds=0.3
        ) as served,
        calling(served, uuid4()) as stub,
    ):
        for timeout in (None, 60.0):
            fake.push(*[Fault(FaultKind.STALL, seconds=20)] * 4)
            try:
                stored = await stub.StoreMemories(request, timeout=timeout)
            finally:
                fake.reset()
            assert stored.results[0].memory.embedding_model == ""


async def test_text_too_long_for_the_model_is_the_callers_fault(by_openai: Stub, fake: FakeProvider) -> None:
    fake.push(Fault(FaultKind.CONTEXT_TOO_LONG))
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_TOO_LONG"):
        await by_openai.StoreMemories(batch(unplaced(content="Tea.")))


async def test_state_whose_text_the_model_does_not_take_can_be_had_again(
    by_openai: Stub, fake: FakeProvider, postgres: ClonedDatabase, tenant_id: UUID
) -> None:
    # Its vector was the caller's.
    given = batch(placed(towards(0), key="k", content="Tea."))
    stored = (await by_openai.StoreMemories(given)).results[0].memory
    changed = memory_pb2.Memory(memory_id=stored.memory_id, content="Coffee.")
    await by_openai.UpdateMemory(pb.UpdateMemoryRequest(memory=changed, update_mask=FieldMask(paths=["content"])))
    fake.push(Fault(FaultKind.CONTEXT_TOO_LONG))
    back = await by_openai.RollbackMemory(pb.RollbackMemoryRequest(memory_id=stored.memory_id, revision=1))
    assert (back.memory.content, back.memory.revision, back.memory.embedding_model) == ("Tea.", 3, "")
    assert await waiting(postgres, tenant_id) == {stored.memory_id}


@pytest.mark.parametrize("status", [400, 422])
async def test_query_that_the_model_does_not_take_is_searched_by_its_words(
    by_openai: Stub, fake: FakeProvider, status: int
) -> None:
    agent_id = str(uuid4())
    await by_openai.StoreMemories(batch(unplaced(agent_id=agent_id, content="Ann drinks tea.")))
    fake.push(Fault(FaultKind.CONTEXT_TOO_LONG) if status == 400 else Fault(FaultKind.SERVER_ERROR, status=status))
    found = await by_openai.SearchMemories(
        pb.SearchMemoriesRequest(agent_id=agent_id, user_id="ann", query="Which tea? " * 700)
    )
    assert (found.plan, [hit.memory.content for hit in found.hits]) == (
        memory_pb2.SEARCH_PLAN_LEXICAL,
        ["Ann drinks tea."],
    )


async def test_absent_gateway_leaves_texts_without_a_vector(postgres: ClonedDatabase) -> None:
    agent_id, tenant_id = str(uuid4()), uuid4()
    async with (
        serve("memory", postgres, gateway_address="127.0.0.1:1", embedding_poll_seconds=3_600) as served,
        calling(served, tenant_id) as stub,
    ):
        request = batch(unplaced(agent_id=agent_id, content="Tea."), request_id=uuid7())
        stored = (await stub.StoreMemories(request)).results[0]
        assert (stored.outcome, stored.memory.embedding_model) == (memory_pb2.STORE_OUTCOME_CREATED, "")
        assert (await stub.StoreMemories(request)).results[0] == stored
        assert await waiting(postgres, tenant_id) == {stored.memory.memory_id}
        # A vector that comes later is no other state.
        given = batch(placed(towards(0), agent_id=agent_id, content="Tea."))
        vectored = (await stub.StoreMemories(given)).results[0]
        assert (vectored.memory.embedding_model, vectored.memory.revision) == (MODEL, 1)
        assert await waiting(postgres, tenant_id) == set()


async def test_text_that_changes_while_nobody_embeds_loses_its_vector(postgres: ClonedDatabase) -> None:
    agent_id, tenant_id = str(uuid4()), uuid4()
    async with (
        serve("memory", postgres, gateway_address="127.0.0.1:1", embedding_poll_seconds=3_600) as served,
        calling(served, tenant_id) as stub,
    ):
        await stub.StoreMemories(batch(placed(towards(0), agent_id=agent_id, key="k", content="Tea.")))
        same = await stub.StoreMemories(batch(unplaced(agent_id=agent_id, key="k", content="Tea.")))
        assert same.results[0].outcome == memory_pb2.STORE_OUTCOME_UNCHANGED
        assert same.results[0].memory.embedding_model == MODEL
        other = (await stub.StoreMemories(batch(unplaced(agent_id=agent_id, key="k", content="Coffee.")))).results[0]
        assert (other.outcome, other.memory.embedding_model) == (memory_pb2.STORE_OUTCOME_UPDATED, "")
        assert await waiting(postgres, tenant_id) == {other.memory.memory_id}
        assert len((await stub.SearchMemories(search(agent_id, towards(0)))).hits) == 0


async def test_model_that_the_gateway_has_not_leaves_texts_without_a_vector(
    postgres: ClonedDatabase, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The gateway knows no OpenAI here: a fault of the deployment, not of the caller."""
    async with (
        inference(model_cache=tmp_path_factory.mktemp("none")) as gateway,
        serve(
            "memory",
            postgres,
            gateway_address=gateway.address,
            default_embedding_model=OPENAI,
            embedding_poll_seconds=3_600,
        ) as served,
        calling(served, uuid4()) as stub,
    ):
        stored = await stub.StoreMemories(batch(unplaced()))
        assert stored.results[0].memory.embedding_model == ""
        agent_id = stored.results[0].memory.agent_id
        found = await stub.SearchMemories(pb.SearchMemoriesRequest(agent_id=agent_id, user_id="ann", query="tea"))
        assert found.plan == memory_pb2.SEARCH_PLAN_LEXICAL
        assert len(found.hits) == 1


async def test_default_model_that_nobody_registered_is_named(postgres: ClonedDatabase) -> None:
    async with (
        serve("memory", postgres, default_embedding_model="acme/none") as served,
        calling(served, uuid4()) as stub,
    ):
        async with refused(grpc.StatusCode.NOT_FOUND, "EMBEDDING_MODEL_NOT_FOUND") as refusal:
            await stub.StoreMemories(batch(unplaced()))
        assert refusal.metadata == {"embedding_model": "acme/none"}
