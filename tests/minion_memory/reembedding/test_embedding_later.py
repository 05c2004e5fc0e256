"""Memories that were stored while no model answered are embedded later."""

from array import array
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from minion.memory.v1 import embedding_model_service_pb2 as pb
from minion.memory.v1 import memory_service_pb2 as memory_pb
from minion_errors import Aborted
from minion_memory.embedding_models.domain import EmbeddingModel
from minion_memory.reembedding.store import UnembeddedStore
from minion_postgres import Database
from minion_testing.fake_provider import FakeProvider
from minion_testing.postgres import ClonedDatabase
from minion_testing.provider_script import Fault, FaultKind, Script
from minion_testing.serving import Served, serve

from tests.minion_memory.conftest import NOBODY
from tests.minion_memory.gateway_stage import Gateway
from tests.minion_memory.models_stage import (
    SMALL,
    ModelStub,
    as_app,
    choosing,
    contents,
    said,
    until_vectors,
    vectors,
)
from tests.minion_memory.stage import MODEL, batch, calling, towards


async def test_memories_without_a_vector_get_one_later(
    postgres: ClonedDatabase, service: Served, maintainer: Database, gateway: Gateway, tenant_id: UUID
) -> None:
    agent_id = str(uuid4())
    async with (
        serve("memory", postgres, gateway_address=NOBODY, embedding_poll_seconds=3_600) as cut,
        calling(cut, tenant_id) as stub,
    ):
        stored = await stub.StoreMemories(batch(*[said(agent_id, f"Memory {number}.") for number in range(70)]))
        assert {result.memory.embedding_model for result in stored.results} == {""}
    async with calling(service, tenant_id) as stub:
        await until_vectors(maintainer, tenant_id, {MODEL: 70})
        assert await contents(stub, agent_id, "Memory 66.", limit=1) == ["Memory 66."]
        found = await stub.GetMemory(memory_pb.GetMemoryRequest(memory_id=stored.results[0].memory.memory_id))
        assert (found.memory.embedding_model, found.memory.revision) == (MODEL, 1)
        assert found.memory.update_time == stored.results[0].memory.update_time
    assert {identity.origin for identity, _ in gateway.calls if identity.tenant_id == tenant_id} >= {"service:memory"}


async def test_memories_without_a_vector_get_one_of_the_tenants_model(
    postgres: ClonedDatabase, service: Served, models: ModelStub, maintainer: Database, tenant_id: UUID
) -> None:
    agent_id = str(uuid4())
    await models.SetDefaultEmbeddingModel(pb.SetDefaultEmbeddingModelRequest(name=SMALL))
    async with (
        serve("memory", postgres, gateway_address=NOBODY, embedding_poll_seconds=3_600) as cut,
        calling(cut, tenant_id) as stub,
    ):
        await stub.StoreMemories(batch(said(agent_id, "Ann drinks tea.")))
    await until_vectors(maintainer, tenant_id, {SMALL: 1})


async def test_text_that_no_model_takes_holds_up_no_other(
    postgres: ClonedDatabase, models: ModelStub, maintainer: Database, fake: FakeProvider, tenant_id: UUID
) -> None:
    agent_id = str(uuid4())
    await models.SetDefaultEmbeddingModel(pb.SetDefaultEmbeddingModelRequest(name=SMALL))
    fake.push(Script(Fault(FaultKind.CONTEXT_TOO_LONG), match="No model takes this.", times=None))
    try:
        async with (
            serve("memory", postgres, gateway_address=NOBODY, embedding_poll_seconds=3_600) as cut,
            calling(cut, tenant_id) as stub,
        ):
            texts = ["Ann drinks tea.", "No model takes this.", "Ann is 40."]
            await stub.StoreMemories(batch(*[said(agent_id, text) for text in texts]))
        await until_vectors(maintainer, tenant_id, {SMALL: 2})
        waiting = await maintainer.fetch_one(
            "SELECT attempt_count, due_time > now() + interval '10 s' AS later FROM memory.unembedded_memories"
            " WHERE tenant_id = $1",
            tenant_id,
        )
        assert waiting is not None
        assert waiting["later"]
    finally:
        fake.reset()


async def test_memory_that_changed_while_it_was_embedded_later_gets_no_stale_vector(
    database_factory: Callable[..., Awaitable[ClonedDatabase]],
) -> None:
    database = await database_factory()
    agent_id, tenant_id = str(uuid4()), uuid4()
    async with (
        serve("memory", database, gateway_address=NOBODY, embedding_poll_seconds=3_600) as cut,
        calling(cut, tenant_id) as stub,
        as_app(database) as app,
    ):
        await stub.StoreMemories(batch(said(agent_id, "Ann drinks tea.", key="drink")))
        store = UnembeddedStore(app)
        picked = await store.pick(10)
        [text] = await store.read(tenant_id, picked[tenant_id], 1_000)
        await stub.StoreMemories(batch(said(agent_id, "Ann drinks coffee.", key="drink")))
        assert await store.place(tenant_id, EmbeddingModel(1, MODEL, 384), [text], [array("f", towards(0))]) == 0
        async with await database.connect("memory", "owner") as maintainer:
            assert await vectors(maintainer, tenant_id) == {}
        # The new content is due at once, whatever became of the old one.
        again = await store.pick(10)
        [text] = await store.read(tenant_id, again[tenant_id], 1_000)
        assert text.content == "Ann drinks coffee."
        assert await store.place(tenant_id, EmbeddingModel(1, MODEL, 384), [text], [array("f", towards(0))]) == 1
        assert await store.pick(10) == {}


async def test_vector_of_a_model_that_the_tenant_has_left_is_not_placed(
    database_factory: Callable[..., Awaitable[ClonedDatabase]],
) -> None:
    database = await database_factory()
    agent_id, tenant_id = str(uuid4()), uuid4()
    async with (
        serve("memory", database, gateway_address=NOBODY, embedding_poll_seconds=3_600) as cut,
        calling(cut, tenant_id) as stub,
        choosing(cut, tenant_id) as models,
        as_app(database) as app,
    ):
        await models.SetDefaultEmbeddingModel(pb.SetDefaultEmbeddingModelRequest(name=SMALL))
        await stub.StoreMemories(batch(said(agent_id, "Ann drinks tea.")))
        store = UnembeddedStore(app)
        [text] = await store.read(tenant_id, (await store.pick(10))[tenant_id], 1_000)
        with pytest.raises(Aborted, match="moved"):
            await store.place(tenant_id, EmbeddingModel(1, MODEL, 384), [text], [array("f", towards(0))])
        await store.give_back(tenant_id, [text.memory_id], timedelta(0))
        assert await store.pick(10) == {tenant_id: [text.memory_id]}
