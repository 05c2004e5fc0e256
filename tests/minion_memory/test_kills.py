"""A service that is killed in the middle of a stream or an erasure leaves nothing half done; the next try ends it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import grpc
import orjson
import pytest
from minion.memory.v1 import memory_service_pb2 as pb
from minion.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import SERVICE_KEY, ActingTokens

from tests.minion_memory.stage import Stub, placed, scattered

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

_COUNT = 1_200


class Process:
    """The service, as a process that can be killed, and a tenant that calls it."""

    def __init__(self, process: asyncio.subprocess.Process, stub: Stub, token: tuple[str, str]) -> None:
        self._process = process
        self.stub = stub
        self.metadata = grpc.aio.Metadata(token)

    async def kill(self) -> None:
        """Ends it with no time for anything."""
        self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def serving(postgres: ClonedDatabase, tenant_id: UUID) -> AsyncIterator[Process]:
    """Runs the service for a block."""
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
        limit=1024 * 1024,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            async for line in process.stdout:
                logged = orjson.loads(line)
                if logged.get("event") == "serving":
                    break
        async with grpc.aio.insecure_channel(logged["address"]) as channel:
            token = ("authorization", f"Bearer {ActingTokens('gateway', tenant_id, None).mint()}")
            yield Process(process, MemoryServiceStub(channel), token)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def stored(postgres: ClonedDatabase, tenant_id: UUID) -> int:
    """How many memories there are; as many are counted, and as many have a vector."""
    connection = await asyncpg.connect(postgres.admin_dsn)
    try:
        # One statement, so that all three are of one moment.
        row = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM memory.memories WHERE tenant_id = $1) AS there,"
            "       (SELECT count(*) FROM memory.memory_vectors WHERE tenant_id = $1) AS placed,"
            "       (SELECT coalesce(sum(memory_count), 0) FROM memory.scope_counts WHERE tenant_id = $1) AS counted",
            tenant_id,
        )
    finally:
        await connection.close()
    assert row is not None
    assert row["there"] == row["placed"] == row["counted"]
    return int(row["there"])


async def until(condition: Callable[[int], bool], postgres: ClonedDatabase, tenant_id: UUID) -> None:
    async with asyncio.timeout(60):
        while True:
            if condition(await stored(postgres, tenant_id)):
                return
            await asyncio.sleep(0.002)


async def until_gone(postgres: ClonedDatabase) -> None:
    """Waits until what a killed service had sent is over: its connections end then."""
    connection = await asyncpg.connect(postgres.admin_dsn)
    try:
        async with asyncio.timeout(60):
            while True:
                left = await connection.fetchval(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name = 'minion-memory'"
                )
                if left == 0:
                    return
                await asyncio.sleep(0.01)
    finally:
        await connection.close()


async def never_ending(some: list[pb.ImportMemoriesRequest]) -> AsyncIterator[pb.ImportMemoriesRequest]:
    """A stream that says no more after these, and does not end."""
    for request in some:
        yield request
    await asyncio.Event().wait()


def requests(agent_id: str) -> list[pb.ImportMemoriesRequest]:
    return [
        pb.ImportMemoriesRequest(memory=placed(scattered(number), agent_id=agent_id, key=str(number)))
        for number in range(_COUNT)
    ]


async def test_import_and_erasure_survive_kills(postgres: ClonedDatabase, tenant_id: UUID) -> None:
    wanted = requests(str(uuid4()))
    async with serving(postgres, tenant_id) as service:
        some = never_ending(wanted[: _COUNT * 2 // 3])
        call = asyncio.ensure_future(service.stub.ImportMemories(some, metadata=service.metadata))
        await until(lambda count: count >= 300, postgres, tenant_id)
        await service.kill()
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    await until_gone(postgres)
    left = await stored(postgres, tenant_id)
    assert 300 <= left < _COUNT
    assert left % 100 == 0
    async with serving(postgres, tenant_id) as service:
        answer = await service.stub.ImportMemories(iter(wanted), metadata=service.metadata)
        assert (answer.created_count, answer.updated_count, answer.unchanged_count) == (_COUNT - left, 0, left)
        erase = pb.EraseSubjectRequest(user_id="ann")
        call_erase = asyncio.ensure_future(service.stub.EraseSubject(erase, metadata=service.metadata))
        await until(lambda count: count < _COUNT, postgres, tenant_id)
        await service.kill()
        with suppress(grpc.aio.AioRpcError):
            await call_erase
    await until_gone(postgres)
    left = await stored(postgres, tenant_id)
    assert left in (0, 200, 700)
    async with serving(postgres, tenant_id) as service:
        receipt = (await service.stub.EraseSubject(erase, metadata=service.metadata)).receipt
        assert receipt.memory_count == left
    assert await stored(postgres, tenant_id) == 0
