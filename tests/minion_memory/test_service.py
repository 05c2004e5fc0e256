"""The service as a whole: who gets in, how its schema comes, goes and grows, how it starts."""

import asyncio
import os
import signal
import sys
from array import array
from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import grpc
import orjson
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from minion_memory.memories.store import packed, prepare
from minion_memory.memories.worker import purge_requests
from minion_postgres import Migrations
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import SERVICE_KEY, ActingTokens, Served, serve
from uuid_utils.compat import uuid7

from tests.minion_memory.conftest import NOBODY
from tests.minion_memory.stage import Stub, batch, calling, memory, placed, search, towards

MakeDatabase = Callable[..., Awaitable[ClonedDatabase]]
MIGRATIONS = resources.files("minion_memory") / "migrations"


async def test_nobody_gets_in_without_a_credential(service: Served, tenant_id: UUID) -> None:
    request = pb.ListMemoriesRequest()
    async with (
        service.channel(None) as channel,
        refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING"),
    ):
        await MemoryServiceStub(channel).ListMemories(request)
    async with service.operator() as channel:
        stub = MemoryServiceStub(channel)
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TENANT_MISSING"):
            await stub.ListMemories(request)
        named = grpc.aio.Metadata(("minion-tenant", str(tenant_id)))
        assert len((await stub.ListMemories(request, metadata=named)).memories) == 0


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
async def test_the_first_and_the_last_times_are_kept_in_any_zone_of_the_database(
    database_factory: MakeDatabase, zone: str
) -> None:
    database = await database_factory()
    admin = await asyncpg.connect(database.admin_dsn)
    await admin.execute(f"ALTER DATABASE {database.name} SET timezone = '{zone}'")
    await admin.close()
    # Such as a client sends that knows no time; beyond them other zones are in years 0 and 10000.
    moments = [Timestamp(seconds=seconds) for seconds in (-62_135_596_800, 253_402_300_799)]
    async with serve("memory", database, gateway_address=NOBODY) as served, calling(served, uuid4()) as stub:
        for moment in moments:
            stored = await stub.StoreMemories(batch(placed(towards(0), occur_time=moment, valid_from=moment)))
            assert stored.results[0].memory.occur_time == moment
            update = memory_pb2.Memory(memory_id=stored.results[0].memory.memory_id, speaker="Ann")
            changed = await stub.UpdateMemory(
                pb.UpdateMemoryRequest(memory=update, update_mask=FieldMask(paths=["speaker"]))
            )
            assert (changed.memory.occur_time, changed.memory.valid_from) == (moment, moment)


async def test_the_schema_goes_down_and_up_again(database_factory: MakeDatabase) -> None:
    database = await database_factory()
    migrations = Migrations("memory", MIGRATIONS)
    dsn = database.dsn("memory", "owner")
    steps = [step.name for step in migrations.steps]
    assert await migrations.down(dsn, steps=len(steps)) == steps[::-1]
    async with await database.connect("memory", "owner") as owner:
        left = await owner.fetch(
            "SELECT relname FROM pg_class"
            " WHERE relnamespace = 'memory'::regnamespace AND relkind IN ('r', 'p', 'S', 'v')"
        )
        assert [row["relname"] for row in left] == ["schema_migrations"]
        assert await owner.fetch("SELECT FROM pg_proc WHERE pronamespace = 'memory'::regnamespace") == []
    assert (await migrations.up(dsn))[: len(steps)] == steps
    tenant_id = uuid4()
    async with serve("memory", database) as served, calling(served, tenant_id) as stub:
        stored = (await stub.StoreMemories(batch(placed(towards(0))))).results[0].memory
    # What was remembered under the newest schema is there under the first, and under the newest again.
    await migrations.down(dsn, steps=len(steps) - 1)
    await migrations.up(dsn)
    async with serve("memory", database) as served, calling(served, tenant_id) as stub:
        [kept] = (await stub.ListMemories(pb.ListMemoriesRequest())).memories
        assert (kept.memory_id, kept.content) == (stored.memory_id, stored.content)
        # When it was said is not known to the first, so that it counts from when it was stored.
        assert kept.valid_from == kept.occur_time == kept.create_time == stored.create_time


@pytest.mark.parametrize(("dimension", "indexed"), [(2_000, "halfvec(2000)"), (4_000, "halfvec(4000)")])
async def test_a_model_that_comes_later_is_stored_and_walked(
    database_factory: MakeDatabase, dimension: int, indexed: str
) -> None:
    database = await database_factory()
    agent_id, tenant_id = str(uuid4()), uuid4()

    def embedding(degrees: float) -> memory_pb2.Embedding:
        return memory_pb2.Embedding(model="acme/large", values=towards(degrees) + [0.0] * (dimension - 384))

    new = [
        pb.NewMemory(memory=memory(agent_id=agent_id, key=str(angle)), embedding=embedding(angle))
        for angle in range(60)
    ]
    async with serve("memory", database, exact_search_limit=20) as served, calling(served, tenant_id) as stub:
        async with refused(grpc.StatusCode.NOT_FOUND, "EMBEDDING_MODEL_NOT_FOUND"):
            await stub.StoreMemories(batch(*new))
        async with await database.connect("memory", "owner") as owner:
            await owner.execute(
                "INSERT INTO memory.embedding_models (name, provider, dimension) VALUES ('acme/large', 'acme', $1)",
                dimension,
            )
            async with owner.transaction(None) as installing:
                assert await installing.fetch_value("SELECT memory.install_embedding_models()") == 3
                # Nobody else waits for it.
                await stub.StoreMemories(batch(placed(towards(0), agent_id=agent_id, key="meanwhile")), timeout=60)
                found = await stub.SearchMemories(search(agent_id, towards(0)), timeout=60)
                assert [hit.memory.key for hit in found.hits] == ["meanwhile"]
            assert await owner.fetch("SELECT memory.install_embedding_models()") == []
            made = await owner.fetch_value("SELECT pg_get_indexdef('memory.memory_vectors_3_hnsw'::regclass)")
        assert f"((embedding)::{indexed})" in made
        await stub.StoreMemories(batch(*new))
        found = await stub.SearchMemories(
            pb.SearchMemoriesRequest(agent_id=agent_id, user_id="ann", vector=embedding(30), limit=1)
        )
        assert found.scope_count == 61
    assert [hit.memory.key for hit in found.hits] == ["30"]
    # Scores come from the vectors as they were stored, not from the index's halved ones.
    assert found.hits[0].similarity == pytest.approx(1, abs=1e-6)
    assert found.plan == memory_pb2.SEARCH_PLAN_HNSW


async def test_a_vector_of_a_wrong_size_is_refused_by_the_table_too(postgres: ClonedDatabase, memories: Stub) -> None:
    stored = (await memories.StoreMemories(batch(placed(towards(0))))).results[0].memory
    owner = await asyncpg.connect(postgres.dsn("memory", "owner"))
    try:
        await prepare(owner)
        with pytest.raises(asyncpg.CheckViolationError):
            await owner.execute(
                "UPDATE memory.memory_vectors SET embedding = $1 WHERE memory_id = $2",
                packed(array("f", [1.0, 2.0])),
                UUID(stored.memory_id),
            )
    finally:
        await owner.close()


async def test_old_request_ids_are_forgotten(memories: Stub, postgres: ClonedDatabase) -> None:
    old, recent = uuid7(), uuid7()
    for request_id in (old, recent):
        await memories.StoreMemories(batch(placed(towards(0)), request_id=request_id))
    async with await postgres.connect("memory", "owner") as owner, await postgres.connect("memory") as app:
        await owner.execute(
            "UPDATE memory.idempotency_keys SET create_time = now() - interval '25 hours' WHERE request_id = $1", old
        )
        count = "SELECT count(*) FROM memory.idempotency_keys WHERE request_id = $1"
        worker = asyncio.create_task(purge_requests(app))
        try:
            async with asyncio.timeout(60):
                while True:
                    if await owner.fetch_value(count, old) == 0:
                        break
                    await asyncio.sleep(0.01)
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
        assert await owner.fetch_value(count, recent) == 1


async def test_replays_are_kept_without_content(memories: Stub, postgres: ClonedDatabase) -> None:
    request_id = uuid7()
    await memories.StoreMemories(batch(placed(towards(0), content="Her secret.", user_id="eve"), request_id=request_id))
    async with await postgres.connect("memory", "owner") as owner:
        [kept] = await owner.fetch_value("SELECT result FROM memory.idempotency_keys WHERE request_id = $1", request_id)
    assert "Her secret." not in str(kept)
    assert set(kept) == {
        *("memory_id", "outcome", "embedding_model", "superseded_by", "revision", "access_count"),
        *("create_time", "update_time", "valid_from", "occur_time", "access_time"),
    }


async def test_a_search_is_traced_to_its_query(service: Served, memories: Stub) -> None:
    await memories.ListMemories(pb.ListMemoriesRequest())
    names = {span.name for span in service.spans()}
    assert {"/minion.memory.v1.MemoryService/ListMemories", "memory.list_memories"} <= names


async def test_the_service_runs_by_itself_until_it_is_told_to_stop(postgres: ClonedDatabase) -> None:
    root = Path(__file__).parents[2]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MINION_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "minion_memory"),
        env={
            **ours,
            "PYTHONPATH": f"{root / 'services'}:{root / 'shared'}",
            "MINION_DATABASE_URL": postgres.dsn("memory"),
            "MINION_AUTH_MODE": "required",
            "MINION_SERVICE_KEY": SERVICE_KEY,
            "MINION_MEMORY_PORT": "0",
            "MINION_MEMORY_OPERATIONS_PORT": "0",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            async for line in process.stdout:
                logged = orjson.loads(line)
                if logged.get("event") == "serving":
                    break
        async with grpc.aio.insecure_channel(logged["address"]) as channel:
            stub: Stub = MemoryServiceStub(channel)
            token = ("authorization", f"Bearer {ActingTokens('gateway', uuid7(), None).mint()}")
            listed = await stub.ListMemories(pb.ListMemoriesRequest(), metadata=grpc.aio.Metadata(token))
            assert len(listed.memories) == 0
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await process.stdout.read()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
