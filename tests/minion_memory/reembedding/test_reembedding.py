"""Moving a tenant's memories to another embedding model."""

from array import array
from datetime import timedelta
from uuid import UUID, uuid4

import grpc
import pytest
from minion.memory.v1 import embedding_model_pb2, memory_pb2
from minion.memory.v1 import embedding_model_service_pb2 as pb
from minion.memory.v1 import memory_service_pb2 as memory_pb
from minion_memory.reembedding.domain import Lease, PassEnd
from minion_memory.reembedding.store import ReembeddingStore
from minion_postgres import Database
from minion_testing.errors import refused
from minion_testing.fake_provider import FakeProvider
from minion_testing.postgres import ClonedDatabase
from minion_testing.provider_script import Fault, FaultKind, Script
from minion_testing.serving import Served, serve
from uuid_utils.compat import uuid7

from tests.minion_memory.gateway_stage import Gateway
from tests.minion_memory.models_stage import (
    COMPLETED,
    FAILED,
    LARGE,
    RUNNING,
    SMALL,
    ModelStub,
    asking,
    choosing,
    contents,
    ended,
    likeness,
    near,
    operating,
    registering,
    said,
    until,
    until_vectors,
    vectors,
)
from tests.minion_memory.stage import MODEL, Stub, batch, calling, placed, towards

NEEDED = (grpc.StatusCode.FAILED_PRECONDITION, "REEMBEDDING_NEEDED")


async def moved(models: ModelStub, to_model: str = SMALL) -> embedding_model_pb2.Reembedding:
    """Moves the tenant's memories, and waits for the end."""
    begun = (await models.ReembedMemories(pb.ReembedMemoriesRequest(to_model=to_model))).reembedding
    return await ended(models, begun.reembedding_id)


async def default(models: ModelStub) -> str:
    answer = await models.ListEmbeddingModels(pb.ListEmbeddingModelsRequest(page_size=500))
    [name] = [model.name for model in answer.embedding_models if model.is_default]
    return name


async def test_memories_move_to_another_model(
    models: ModelStub, memories: Stub, maintainer: Database, gateway: Gateway, tenant_id: UUID
) -> None:
    agent_id = str(uuid4())
    texts = [f"Ann's memory number {number}." for number in range(150)]
    for start in (0, 100):
        await memories.StoreMemories(batch(*[said(agent_id, text) for text in texts[start : start + 100]]))
    before = list((await memories.ListMemories(memory_pb.ListMemoriesRequest(page_size=500))).memories)
    begun = (await models.ReembedMemories(pb.ReembedMemoriesRequest(to_model=SMALL))).reembedding
    assert (begun.from_model, begun.to_model, begun.state) == (MODEL, SMALL, RUNNING)
    assert (begun.memory_count, begun.done_count, begun.error) == (150, 0, "")
    done = await ended(models, begun.reembedding_id)
    assert (done.state, done.memory_count, done.done_count, done.error) == (COMPLETED, 150, 150, "")
    assert done.create_time == begun.create_time
    assert done.update_time.ToDatetime() > begun.update_time.ToDatetime()
    assert await default(models) == SMALL
    assert (await contents(memories, agent_id, texts[140]))[0] == texts[140]
    # Whoever asked for it answers for what it costs.
    identity, _ = gateway.calls[-1]
    assert (identity.tenant_id, identity.principal, identity.origin) == (tenant_id, "service:memory", "key:test")
    await until_vectors(maintainer, tenant_id, {SMALL: 150})
    after = list((await memories.ListMemories(memory_pb.ListMemoriesRequest(page_size=500))).memories)
    assert {memory.embedding_model for memory in after} == {SMALL}
    for memory in (*before, *after):
        memory.embedding_model = ""
    # A new vector is no new state, and the times stay.
    assert after == before


async def test_a_tenant_with_no_memories_moves(models: ModelStub) -> None:
    done = await moved(models)
    assert (done.state, done.memory_count, done.done_count) == (COMPLETED, 0, 0)
    assert await default(models) == SMALL


async def test_memories_move_to_a_model_registered_later(
    models: ModelStub, memories: Stub, service: Served, maintainer: Database, tenant_id: UUID
) -> None:
    """Of more than 2,000 dimensions, which its index holds in half precision."""
    async with operating(service) as operator:
        request = registering(LARGE, 3072)
        await until(lambda: _ready(operator, request))
    agent_id = str(uuid4())
    await memories.StoreMemories(batch(*[said(agent_id, f"Memory {number}.") for number in range(30)]))
    assert (await moved(models, LARGE)).state == COMPLETED
    assert (await contents(memories, agent_id, "Memory 7.", limit=1)) == ["Memory 7."]
    # And back, which needs every vector anew where the old ones are gone.
    await until_vectors(maintainer, tenant_id, {LARGE: 30})
    assert (await moved(models, MODEL)).state == COMPLETED
    assert (await contents(memories, agent_id, "Memory 7.", limit=1)) == ["Memory 7."]
    await until_vectors(maintainer, tenant_id, {MODEL: 30})


async def _ready(operator: ModelStub, request: pb.RegisterEmbeddingModelRequest) -> bool:
    model = (await operator.RegisterEmbeddingModel(request)).embedding_model
    return model.state == embedding_model_pb2.EMBEDDING_MODEL_STATE_READY


async def test_replay_begins_nothing_and_another_body_is_refused(models: ModelStub) -> None:
    request = pb.ReembedMemoriesRequest(to_model=SMALL, request_id=str(uuid7()))
    first = await models.ReembedMemories(request)
    assert await models.ReembedMemories(request) == first
    await ended(models, first.reembedding.reembedding_id)
    assert await models.ReembedMemories(request) == first
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await models.ReembedMemories(pb.ReembedMemoriesRequest(to_model=MODEL, request_id=request.request_id))
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await models.ReembedMemories(pb.ReembedMemoriesRequest(to_model=MODEL, request_id="again"))
    assert set(refusal.violations) == {"request_id"}


async def test_one_move_at_a_time(models: ModelStub, memories: Stub, service: Served, fake: FakeProvider) -> None:
    agent_id = str(uuid4())
    await memories.StoreMemories(batch(said(agent_id, "One at a time.")))
    fake.push(Script(Fault(FaultKind.SERVER_ERROR), match="One at a time.", times=None))
    try:
        begun = (await models.ReembedMemories(pb.ReembedMemoriesRequest(to_model=SMALL))).reembedding
        for to_model in (SMALL, MODEL):
            async with refused(grpc.StatusCode.FAILED_PRECONDITION, "REEMBEDDING_RUNNING") as refusal:
                await models.ReembedMemories(pb.ReembedMemoriesRequest(to_model=to_model))
            assert refusal.metadata == {"reembedding_id": begun.reembedding_id}
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "REEMBEDDING_RUNNING"):
            await models.SetDefaultEmbeddingModel(pb.SetDefaultEmbeddingModelRequest(name=MODEL))
        async with choosing(service, uuid4()) as strangers:
            assert (await moved(strangers)).state == COMPLETED

        async def fault_is_told() -> str:
            request = pb.GetReembeddingRequest(reembedding_id=begun.reembedding_id)
            return (await models.GetReembedding(request)).reembedding.error

        assert str(await until(fault_is_told)).startswith("PROVIDER_UNAVAILABLE: ")
        # Meanwhile all goes on with the old vectors.
        assert await contents(memories, agent_id, "at a time") == ["One at a time."]
    finally:
        fake.reset()
    done = await ended(models, begun.reembedding_id)
    assert (done.state, done.error) == (COMPLETED, "")


async def test_absent_and_foreign_moves_are_not_found(models: ModelStub, service: Served) -> None:
    begun = await moved(models)
    async with choosing(service, uuid4()) as strangers:
        for stub, reembedding_id in ((models, str(uuid4())), (strangers, begun.reembedding_id)):
            async with refused(grpc.StatusCode.NOT_FOUND, "REEMBEDDING_NOT_FOUND") as refusal:
                await stub.GetReembedding(pb.GetReembeddingRequest(reembedding_id=reembedding_id))
            assert refusal.metadata == {"reembedding_id": reembedding_id}
    for malformed in ("", "move"):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
            await models.GetReembedding(pb.GetReembeddingRequest(reembedding_id=malformed))
        assert set(refusal.violations) == {"reembedding_id"}


async def test_vectors_of_the_model_left_are_answered_by_text(models: ModelStub, memories: Stub) -> None:
    """As the gateway goes on, whose own model stays the old one."""
    agent_id = str(uuid4())
    await memories.StoreMemories(batch(said(agent_id, "Ann drinks tea."), said(agent_id, "Ann rides a bicycle.")))
    await moved(models)
    old = memory_pb2.Embedding(model=MODEL, values=towards(0))
    assert (await contents(memories, agent_id, "Ann drinks tea.", vector=old, limit=1)) == ["Ann drinks tea."]
    async with refused(*NEEDED) as refusal:
        await memories.SearchMemories(near(MODEL, towards(0), agent_id))
    assert refusal.metadata == {"embedding_model": MODEL, "default_model": SMALL}
    stored = (await memories.StoreMemories(batch(placed(towards(5), agent_id=agent_id, content="Ann is 40.")))).results
    assert [result.memory.embedding_model for result in stored] == [SMALL]
    assert (await contents(memories, agent_id, "Ann is 40.", limit=1)) == ["Ann is 40."]


async def test_another_replica_learns_of_a_move_at_once(
    models: ModelStub, memories: Stub, postgres: ClonedDatabase, gateway: Gateway, tenant_id: UUID
) -> None:
    """It remembers the tenant's model for seconds; what it stores and finds is right all the same."""
    agent_id = str(uuid4())
    async with (
        serve("memory", postgres, gateway_address=gateway.address, embedding_poll_seconds=3_600) as served,
        calling(served, tenant_id) as elsewhere,
    ):
        await elsewhere.StoreMemories(batch(said(agent_id, "Ann drinks tea.")))
        await moved(models)
        assert await contents(elsewhere, agent_id, "Ann drinks tea.") == ["Ann drinks tea."]
    async with (
        serve("memory", postgres, gateway_address=gateway.address, embedding_poll_seconds=3_600) as served,
        calling(served, tenant_id) as elsewhere,
    ):
        assert await contents(elsewhere, agent_id, "Ann drinks tea.") == ["Ann drinks tea."]
        await moved(models, MODEL)
        stored = await elsewhere.StoreMemories(batch(said(agent_id, "Ann rides a bicycle.")))
        assert stored.results[0].memory.embedding_model == MODEL
    assert await contents(memories, agent_id, "Ann rides a bicycle.", limit=1) == ["Ann rides a bicycle."]


@pytest.mark.parametrize(
    ("model", "reason"), [("acme/unknown", "MODEL_NOT_FOUND"), ("openai/text-embedding-odd", "EMBEDDING_MISSHAPEN")]
)
async def test_model_that_the_gateway_has_not_so_fails_the_move(
    models: ModelStub, memories: Stub, service: Served, model: str, reason: str
) -> None:
    """It is unknown there, or makes vectors of another length than was registered."""
    agent_id = str(uuid4())
    async with operating(service) as operator:
        await until(lambda: _ready(operator, registering(model, 5)))
    await memories.StoreMemories(batch(said(agent_id, "Ann drinks tea.")))
    failed = await moved(models, model)
    assert (failed.state, failed.memory_count, failed.done_count) == (FAILED, 1, 0)
    assert failed.error.startswith(f"{reason}: ")
    assert await default(models) == MODEL
    assert await contents(memories, agent_id, "Ann drinks tea.") == ["Ann drinks tea."]


async def test_text_that_the_model_does_not_take_fails_the_move(
    models: ModelStub, memories: Stub, fake: FakeProvider
) -> None:
    agent_id = str(uuid4())
    stored = await memories.StoreMemories(
        batch(said(agent_id, "Ann drinks tea."), said(agent_id, "Far too long."), said(agent_id, "Ann is 40."))
    )
    fake.push(Script(Fault(FaultKind.CONTEXT_TOO_LONG), match="Far too long.", times=None))
    try:
        failed = await moved(models)
    finally:
        fake.reset()
    assert (failed.state, failed.memory_count) == (FAILED, 3)
    assert failed.error == f"CONTEXT_TOO_LONG: the model does not take the memory {stored.results[1].memory.memory_id}."
    assert await default(models) == MODEL
    # What was made is used by the next try.
    assert (await moved(models)).state == COMPLETED


async def test_vectors_made_before_a_failure_do_not_outlive_a_change(
    models: ModelStub, memories: Stub, fake: FakeProvider
) -> None:
    agent_id = str(uuid4())
    await memories.StoreMemories(
        batch(said(agent_id, "Ann drinks tea.", key="drink"), said(agent_id, "Far too long.", key="long"))
    )
    fake.push(Script(Fault(FaultKind.CONTEXT_TOO_LONG), match="Far too long.", times=None))
    try:
        assert (await moved(models)).state == FAILED
    finally:
        fake.reset()
    await memories.StoreMemories(batch(said(agent_id, "Ann drinks coffee.", key="drink")))
    assert (await moved(models)).state == COMPLETED
    found = await memories.SearchMemories(asking(agent_id, "Ann drinks coffee.", limit=1))
    assert [(hit.memory.content, round(likeness(hit), 2)) for hit in found.hits] == [("Ann drinks coffee.", 1)]


async def test_memory_that_changed_meanwhile_gets_no_stale_vector(
    memories: Stub, app: Database, maintainer: Database, tenant_id: UUID
) -> None:
    agent_id = str(uuid4())
    stored = await memories.StoreMemories(batch(said(agent_id, "Ann drinks tea.", key="drink")))
    memory_id = UUID(stored.results[0].memory.memory_id)
    job = await _begun(app, tenant_id)
    store = ReembeddingStore(app, lease_seconds=60)
    [text] = await store.pick(job, 10, 1_000)
    await memories.StoreMemories(batch(said(agent_id, "Ann drinks coffee.", key="drink")))
    assert await store.place(job, [text], [array("f", [1.0] * 1536)])
    assert await vectors(maintainer, tenant_id) == {MODEL: 1}
    assert await store.end_pass(job) is PassEnd.AGAIN
    [text] = await store.pick(job, 10, 1_000)
    assert (text.memory_id, text.content) == (memory_id, "Ann drinks coffee.")
    await store.fail(job, "Ended by the test.")


async def test_content_that_changes_under_the_same_vector_loses_the_new_one(
    memories: Stub, app: Database, maintainer: Database, tenant_id: UUID
) -> None:
    agent_id = str(uuid4())
    await memories.StoreMemories(batch(placed(towards(0), agent_id=agent_id, key="drink", content="Tea.")))
    job = await _begun(app, tenant_id)
    store = ReembeddingStore(app, lease_seconds=60)
    assert await store.place(job, await store.pick(job, 10, 1_000), [array("f", [1.0] * 1536)])
    assert await vectors(maintainer, tenant_id) == {MODEL: 1, SMALL: 1}
    await memories.StoreMemories(batch(placed(towards(0), agent_id=agent_id, key="drink", content="Coffee.")))
    assert await vectors(maintainer, tenant_id) == {MODEL: 1}
    assert await store.end_pass(job) is PassEnd.AGAIN
    assert [text.content for text in await store.pick(job, 10, 1_000)] == ["Coffee."]
    await store.fail(job, "Ended by the test.")


async def test_worker_that_lost_its_lease_writes_nothing(
    memories: Stub, app: Database, maintainer: Database, tenant_id: UUID
) -> None:
    await memories.StoreMemories(batch(said(str(uuid4()), "Ann drinks tea.")))
    job = await _begun(app, tenant_id)
    store = ReembeddingStore(app, lease_seconds=60)
    [text] = await store.pick(job, 10, 1_000)
    late = Lease(job.tenant_id, job.reembedding_id, job.epoch - 1)
    assert not await store.place(late, [text], [array("f", [1.0] * 1536)])
    assert not await store.close(late, timedelta(seconds=5))
    assert await store.end_pass(late) is PassEnd.LOST
    assert await store.read(late) is None
    assert await store.pick(late, 10, 1_000) == []
    await store.fail(late, "Not for it to say.")
    await store.defer(late, timedelta(hours=1), "Not for it to say.")
    found = await store.get(tenant_id, job.reembedding_id)
    assert found is not None
    assert (found.state.value, found.error) == ("running", "")
    assert await vectors(maintainer, tenant_id) == {MODEL: 1}
    await store.fail(job, "Ended by the test.")


async def _begun(app: Database, tenant_id: UUID) -> Lease:
    """Begins a move that no worker takes: the test holds it."""
    job = UUID(int=uuid7().int)
    async with app.transaction(tenant_id) as transaction:
        await transaction.execute(
            "SELECT memory.begin_reembedding($1, $2, $3, 2::smallint, 'test')", tenant_id, job, MODEL
        )
        await transaction.execute(
            "UPDATE memory.reembeddings SET epoch = 7, lease_until = 'infinity' WHERE reembedding_id = $1", job
        )
    return Lease(tenant_id, job, 7)


async def test_writers_wait_for_the_end_of_a_move_and_no_longer(memories: Stub, app: Database, tenant_id: UUID) -> None:
    agent_id = str(uuid4())
    await memories.StoreMemories(batch(said(agent_id, "Ann drinks tea.")))
    job = await _begun(app, tenant_id)
    store = ReembeddingStore(app, lease_seconds=60)
    assert await store.close(job, timedelta(seconds=0.4))
    # Searches go on.
    assert await contents(memories, agent_id, "Ann drinks tea.") == ["Ann drinks tea."]
    stored = await memories.StoreMemories(batch(said(agent_id, "Ann is 40.")))
    assert stored.results[0].memory.embedding_model == MODEL
    async with app.transaction(tenant_id) as transaction:
        assert await transaction.fetch_value(
            "SELECT clock_timestamp() > closing_until FROM memory.reembeddings WHERE reembedding_id = $1",
            job.reembedding_id,
        )
    await store.fail(job, "Ended by the test.")
