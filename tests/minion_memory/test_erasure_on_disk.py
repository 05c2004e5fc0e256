"""After an erasure and a VACUUM FULL, no byte of what was said is on the server's disk, nor in a log."""

import asyncio
import secrets
import struct
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
from google.protobuf import struct_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_testing.forensics import clear_away, keep_no_log, traces
from minion_testing.postgres import ClonedDatabase, cluster
from minion_testing.serving import serve
from uuid_utils.compat import uuid7

from tests.minion_memory.stage import MODEL, Stub, batch, calling, placed, scattered

_FIELDS = ("content", "key", "speaker", "label", "metadata", "quote", "reason", "user")


@pytest_asyncio.fixture(loop_scope="session")
async def own() -> AsyncIterator[ClonedDatabase]:
    """A server of the test's own: its whole disk is looked at."""
    async with cluster() as running:
        database = await running.clone()
        await keep_no_log(database.admin_dsn)
        yield database


class Told:
    """What is told of a user; each field bears a mark of its own that is nowhere else."""

    def __init__(self, name: str) -> None:
        self._token = secrets.token_hex(12)
        self.user_id = self._marked("user", name)
        # Of a number that nobody else has; so is what a disk holds of it.
        self._number = struct.unpack("<f", struct.pack("<f", 1 + secrets.randbelow(1_000_000) / 1_000_003))[0]

    def _marked(self, field: str, text: str = "") -> str:
        return f"{field}{self._token}{text}"

    @property
    def marks(self) -> dict[str, bytes]:
        """What must not be found."""
        marks = {field: self._marked(field).encode() for field in _FIELDS}
        return marks | {"vector": struct.pack("<f", self._number) * 8}

    def new(self, agent_id: str, number: int, *, large: bool = False) -> pb.NewMemory:
        """A memory to store; a large one doesn't fit into its row."""
        metadata = struct_pb2.Struct()
        metadata.update({"note": self._marked("metadata")})
        text = " ".join(secrets.token_hex(4) for _ in range(2_000 if large else 5))
        return placed(
            [self._number] * 8 + scattered(number)[8:],
            agent_id=agent_id,
            user_id=self.user_id,
            key=self._marked("key", str(number)),
            content=self._marked("content", f" {number} {text}"),
            speaker=self._marked("speaker"),
            labels={self._marked("label"): self._marked("label")},
            metadata=metadata,
            source=memory_pb2.MemorySource(quote=self._marked("quote")),
        )

    def changed(self, memory_id: str, number: int) -> pb.UpdateMemoryRequest:
        """A change of a memory."""
        return pb.UpdateMemoryRequest(
            memory=memory_pb2.Memory(memory_id=memory_id, content=self._marked("content", f"again {number}")),
            update_mask=FieldMask(paths=["content"]),
            embedding=memory_pb2.Embedding(model=MODEL, values=[self._number] * 8 + scattered(number)[8:]),
            reason=self._marked("reason"),
            request_id=str(uuid7()),
        )


async def tell(memories: Stub, told: Told, count: int) -> None:
    """Stores memories, changes half of them, puts some of those back, and deletes some."""
    agent_id = str(uuid4())
    ids: list[str] = []
    for begin in range(0, count, 50):
        new = [told.new(agent_id, n, large=n % 10 == 0) for n in range(begin, min(begin + 50, count))]
        answer = await memories.StoreMemories(batch(*new, request_id=uuid7()))
        ids += [result.memory.memory_id for result in answer.results]
    for number, memory_id in enumerate(ids[::2]):
        await memories.UpdateMemory(told.changed(memory_id, number))
    for memory_id in ids[::4]:
        await memories.RollbackMemory(
            pb.RollbackMemoryRequest(memory_id=memory_id, revision=1, request_id=str(uuid7()))
        )
    for memory_id in ids[::5]:
        await memories.DeleteMemory(pb.DeleteMemoryRequest(memory_id=memory_id, request_id=str(uuid7())))


async def prove(own: ClonedDatabase, capfd: pytest.CaptureFixture[str], *, count: int) -> None:
    """Tells of two users, erases one, and looks for both."""
    gone, kept = Told("ann"), Told("bob")
    folder = own.postgres.log_path.parent
    async with serve("memory", own, gateway_address="127.0.0.1:1") as served, calling(served, uuid4()) as memories:
        await asyncio.gather(tell(memories, gone, count), tell(memories, kept, 10))
        connection = await asyncpg.connect(own.admin_dsn)
        # Statistics and a log of faults are places where words may stay.
        await connection.execute("ANALYZE; CHECKPOINT")
        await connection.close()
        assert all((await asyncio.to_thread(traces, folder, gone.marks)).values())
        receipt = (await memories.EraseSubject(pb.EraseSubjectRequest(user_id=gone.user_id))).receipt
        assert receipt.memory_count == count - len(range(0, count, 5))
        await clear_away(own.admin_dsn)
        assert await asyncio.to_thread(traces, folder, gone.marks) == {name: set() for name in gone.marks}
        # The look itself works: what was not erased is there.
        assert all((await asyncio.to_thread(traces, folder, kept.marks)).values())
        listed: Any = await memories.ListMemories(pb.ListMemoriesRequest(user_id=kept.user_id))
        assert len(listed.memories) == 8
    logged = "".join(capfd.readouterr())
    assert "EraseSubject" in logged
    assert not any(mark.decode() in logged for name, mark in gone.marks.items() if name != "vector")


async def test_no_byte_is_left(own: ClonedDatabase, capfd: pytest.CaptureFixture[str]) -> None:
    await prove(own, capfd, count=60)


@pytest.mark.faults
@pytest.mark.timeout(600)
async def test_no_byte_is_left_of_many(own: ClonedDatabase, capfd: pytest.CaptureFixture[str]) -> None:
    await prove(own, capfd, count=3_000)
