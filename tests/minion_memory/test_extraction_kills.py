"""A worker that is killed in the middle of a job: another one does it, and everything is there once."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import orjson
import pytest
from minion.memory.v1 import memory_service_pb2 as pb
from minion.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from minion_testing.postgres import ClonedDatabase
from minion_testing.provider_script import Fault, FaultKind
from minion_testing.serving import SERVICE_KEY, ActingTokens, serve

from tests.minion_memory.extraction_stage import House, answered, house, proposal

# So long that a replica that is stopped for a while, and not killed, keeps its job.
_LEASE = timedelta(seconds=600)


@asynccontextmanager
async def replica(stage: House) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Runs the memory service as a process of its own; gives it and its address."""
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "minion_memory"),
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("MINION_")},
            "PYTHONPATH": f"{root / 'services'}:{root / 'shared'}",
            "MINION_DATABASE_URL": stage.database.dsn("memory"),
            "MINION_AUTH_MODE": "required",
            "MINION_SERVICE_KEY": SERVICE_KEY,
            "MINION_MEMORY_PORT": "0",
            "MINION_MEMORY_OPERATIONS_PORT": "0",
            "MINION_GATEWAY_ADDRESS": stage.memory.settings.gateway_address,  # type: ignore[attr-defined]
            "MINION_SESSION_ADDRESS": stage.session.address,
            "MINION_REGISTRY_ADDRESS": stage.registry.address,
            "MINION_MEMORY_FOLLOW_SESSIONS": "false",
            "MINION_MEMORY_EXTRACTION_LEASE_SECONDS": str(_LEASE.seconds),
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
        yield process, logged["address"]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_killed_worker_s_job_is_done_once_by_another(
    database_factory: Callable[..., Awaitable[ClonedDatabase]], model_cache: Path
) -> None:
    database = await database_factory()
    async with house(database, model_cache, by_model=True, follow_sessions=False) as stage, stage.tenant() as ours:
        session_id = await ours.session("My name is Ada.")
        await stage.memory.server.drain_and_stop()
        stage.provider.push(Fault(FaultKind.STALL), answered([proposal()]))
        async with replica(stage) as (process, address), grpc.aio.insecure_channel(address) as channel:
            token = ("authorization", f"Bearer {ActingTokens('gateway', ours.tenant_id, None).mint()}")
            asked = MemoryServiceStub(channel).ExtractMemories(
                pb.ExtractMemoriesRequest(session_id=session_id, extractor="facts-1"),
                metadata=grpc.aio.Metadata(token),
            )
            await stage.provider.ledger.until(1)
            process.kill()
            await process.wait()
            with pytest.raises(grpc.aio.AioRpcError):
                await asked
        stage.provider.release()
        other = serve(
            "memory",
            database,
            gateway_address=stage.memory.settings.gateway_address,  # type: ignore[attr-defined]
            session_address=stage.session.address,
            registry_address=stage.registry.address,
            follow_sessions=False,
        )
        async with await database.connect("memory", "owner") as owner:
            # As if the lease's time had passed.
            lapse = "UPDATE memory.extraction_jobs SET lease_until = lease_until - $1::interval WHERE state = 'running'"
            assert await owner.execute(lapse, _LEASE) == 1
        async with other as second, replace(stage, memory=second).tenant(ours.tenant_id) as same:
            [job] = await same.done(session_id)
            assert (job.attempt_count, job.created_count) == (2, 1)
            [memory] = await same.kept()
            assert (memory.content, memory.revision) == ("The user's name is Ada.", 1)
