"""Memories move to another model while they are searched, stored and changed, and while workers are killed.

No search fails, and each finds what it would have found: a memory that was acknowledged comes first when its own words
are asked for, and as many come as there are.
"""

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from minion.memory.v1 import embedding_model_service_pb2 as pb
from minion.memory.v1 import memory_pb2
from minion_postgres import Database
from minion_testing.fake_provider import FakeProvider
from minion_testing.postgres import ClonedDatabase
from minion_testing.provider_script import Fault, FaultKind, Script
from minion_testing.serving import SERVICE_KEY, serve

from tests.minion_memory.gateway_stage import Gateway
from tests.minion_memory.models_stage import COMPLETED, RUNNING, SMALL, asking, choosing, said, until, until_vectors
from tests.minion_memory.stage import MODEL, Stub, batch, calling, towards

_ROOT = Path(__file__).parents[3]
_WORDS = (
    *("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "islet"),
    *("jetty", "knoll", "larch", "maple", "nadir", "ocean", "pearl", "quill", "ridge"),
)


@dataclass
class Load:
    """Callers of one tenant, and what they saw."""

    stubs: list[Stub]
    agent_id: str
    source: random.Random = field(default_factory=lambda: random.Random(11))  # noqa: S311 - test data
    # What was acknowledged, by key; a key that is being written is not in it.
    known: dict[str, str] = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    moved: bool = False
    stopped: bool = False

    async def fill(self, count: int) -> None:
        """Stores the first memories."""
        for start in range(0, count, 100):
            keys = [f"m{number}" for number in range(start, min(start + 100, count))]
            texts = {key: self._text() for key in keys}
            await self.stubs[0].StoreMemories(batch(*[said(self.agent_id, texts[key], key=key) for key in keys]))
            self.known |= texts

    async def search(self, stub: Stub, *, with_vector: bool) -> None:
        """Asks for memories by their own words, again and again.

        Once they have moved, some come with a vector of the model left, as the gateway's do.
        """
        vector = memory_pb2.Embedding(model=MODEL, values=towards(0)) if with_vector else None
        while not self.stopped:
            key, text = self.source.choice(list(self.known.items()))
            if with_vector and not self.moved:
                # Its vector would be compared as it is.
                await asyncio.sleep(0.01)
                continue
            try:
                found = await stub.SearchMemories(asking(self.agent_id, text, vector=vector, limit=10), timeout=60)
            except grpc.aio.AioRpcError as error:
                self.faults.append(f"a search failed: {error.code().name} {error.details()}")
                continue
            self.counted["searches"] += 1
            if len(found.hits) != 10:
                self.faults.append(f"a search brought {len(found.hits)} of 10")
            elif found.hits[0].memory.content != text and self.known.get(key) == text:
                self.faults.append(f"{text!r} was not found, but {found.hits[0].memory.content!r}")
            elif found.hits[0].HasField("explanation") and not found.hits[0].HasField("similarity"):
                self.faults.append(f"{text!r} was found by its words alone")

    async def write(self, stub: Stub, *, pause: float) -> None:
        """Stores memories and changes some."""
        number = 0
        while not self.stopped:
            number += 1
            key = f"w{uuid4()}" if number % 2 else self.source.choice(list(self.known))
            text = self._text()
            self.known.pop(key, None)
            try:
                await stub.StoreMemories(batch(said(self.agent_id, text, key=key)), timeout=60)
            except grpc.aio.AioRpcError as error:
                self.faults.append(f"a store failed: {error.code().name} {error.details()}")
            else:
                self.known[key] = text
                self.counted["writes"] += 1
            await asyncio.sleep(pause)

    def _text(self) -> str:
        words = " ".join(self.source.choice(_WORDS) for _ in range(5))
        return f"{words} {self.source.randrange(10**9)}"

    @asynccontextmanager
    async def running(self, *, searchers: int, writers: int, pause: float) -> AsyncIterator[None]:
        """Searches and writes for a block."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(searchers):
                stub = self.stubs[number % len(self.stubs)]
                tasks.create_task(self.search(stub, with_vector=number % 3 == 2))
            for number in range(writers):
                tasks.create_task(self.write(self.stubs[number % len(self.stubs)], pause=pause))
            try:
                yield
            finally:
                self.stopped = True


class Worker:
    """A replica in a process of its own, which can be killed."""

    def __init__(self, database: ClonedDatabase, gateway: Gateway) -> None:
        self._environ: Mapping[str, str] = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MINION_")},
            "MINION_DATABASE_URL": database.dsn("memory"),
            "MINION_AUTH_MODE": "required",
            "MINION_SERVICE_KEY": SERVICE_KEY,
            "MINION_GATEWAY_ADDRESS": gateway.address,
            "MINION_MEMORY_PORT": "0",
            "MINION_MEMORY_OPERATIONS_PORT": "0",
            "MINION_MEMORY_EMBEDDING_POLL_SECONDS": "0.05",
            "MINION_MEMORY_REEMBEDDING_LEASE_SECONDS": "2",
        }
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts it."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "minion_memory",
            env=dict(self._environ),
            cwd=_ROOT,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def kill(self) -> None:
        """Kills it at once."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            assert await self.process.wait() == -signal.SIGKILL


async def _move_under_load(
    database: ClonedDatabase,
    gateway: Gateway,
    fake: FakeProvider,
    maintainer: Database,
    *,
    memories: int,
    kills: int,
    pause: float,
    searches: int,
    writes: int,
) -> Counter[str]:
    """Moves memories; so many searches and writes at least come before each kill."""
    tenant_id = uuid4()
    worker = Worker(database, gateway)
    # The replicas that serve do no work of their own beside: the one that is killed does.
    quiet: dict[str, Any] = {
        "gateway_address": gateway.address,
        "embedding_poll_seconds": 3_600,
        "embed_seconds": 60,
    }
    async with AsyncExitStack() as held:
        served = [await held.enter_async_context(serve("memory", database, **quiet)) for _ in range(2)]
        stubs = [await held.enter_async_context(calling(one, tenant_id)) for one in served]
        models = await held.enter_async_context(choosing(served[0], tenant_id))
        held.push_async_callback(worker.kill)
        load = Load(stubs, str(uuid4()))
        await load.fill(memories)
        # Before each kill some slow batches, and one that gets no vectors: the middle, however fast the machine is.
        batches = memories // 64 // (kills + 1)
        for _ in range(kills):
            fake.push(Script(Fault(FaultKind.STALL, seconds=0.1), times=batches), Fault(FaultKind.STALL))
        asked = len(fake.ledger.asked)
        begun = (await models.ReembedMemories(pb.ReembedMemoriesRequest(to_model=SMALL))).reembedding
        request = pb.GetReembeddingRequest(reembedding_id=begun.reembedding_id)
        async with load.running(searchers=6, writers=2, pause=pause):
            for number in range(kills):
                await worker.start()
                asked += batches + 1
                await fake.ledger.until(asked)
                move = (await models.GetReembedding(request)).reembedding
                assert (move.state, move.error) == (RUNNING, "")
                assert 0 < move.done_count < move.memory_count

                async def was_busy(times: int = number + 1) -> bool:
                    return load.counted["searches"] > times * searches and load.counted["writes"] > times * writes

                await until(was_busy)
                if number % 2:
                    # Not always while it waits: somewhere in the batches that come next.
                    fake.release()
                    await asyncio.sleep(load.source.uniform(0.0, 0.1))
                await worker.kill()
                load.counted["kills"] += 1
            await worker.start()

            async def has_moved() -> bool:
                return (await models.GetReembedding(request)).reembedding.state == COMPLETED

            await until(has_moved, seconds=120)
            load.moved = True
            before = load.counted["searches"]

            async def was_searched_after() -> bool:
                return load.counted["searches"] > before + 100

            await until(was_searched_after, seconds=120)
        fake.reset()
        assert load.faults == []
        # Every memory has its one vector, which is of its own content.
        await until_vectors(maintainer, tenant_id, {SMALL: len(load.known)})
        for key, text in random.Random(3).sample(sorted(load.known.items()), 50):  # noqa: S311 - test data
            found = await stubs[0].SearchMemories(asking(load.agent_id, text, limit=1))
            assert (found.hits[0].memory.key, found.hits[0].memory.embedding_model) == (key, SMALL)
        return load.counted


@pytest.mark.slow
async def test_no_search_fails_while_memories_move_and_a_worker_is_killed(
    postgres: ClonedDatabase, gateway: Gateway, fake: FakeProvider, maintainer: Database
) -> None:
    counted = await _move_under_load(
        postgres, gateway, fake, maintainer, memories=320, kills=1, pause=0.03, searches=100, writes=10
    )
    assert counted["searches"] > 200
    assert counted["writes"] > 10
    assert counted["kills"] == 1


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_no_search_fails_whatever_is_killed(
    postgres: ClonedDatabase, gateway: Gateway, fake: FakeProvider, maintainer: Database
) -> None:
    counted = await _move_under_load(
        postgres, gateway, fake, maintainer, memories=1_500, kills=5, pause=0.0, searches=200, writes=40
    )
    assert counted["searches"] > 1_000
    assert counted["writes"] > 200
    assert counted["kills"] == 5
