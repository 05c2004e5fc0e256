"""After an erasure and a VACUUM FULL, no byte of what was said is on the server's disk, nor in a log."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask
from minion.session.v1 import session_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_grpc import wire
from minion_testing.forensics import clear_away, keep_no_log, traces
from minion_testing.postgres import ClonedDatabase, cluster

from tests.minion_session.made import append, new_id, open_session, struct, turn
from tests.minion_session.stage import Stub, gateway, serving

_FIELDS = ("user", "name", "note", "text", "author", "key", "value")


@pytest_asyncio.fixture(loop_scope="session")
async def own() -> AsyncIterator[ClonedDatabase]:
    """A server of the test's own: its whole disk is looked at."""
    async with cluster() as running:
        database = await running.clone()
        await keep_no_log(database.admin_dsn)
        yield database


class Said:
    """What is said by a user; each field bears a mark of its own that is nowhere else."""

    def __init__(self) -> None:
        self._token = secrets.token_hex(12)

    def marked(self, field: str, text: str = "") -> str:
        """A text of this field."""
        return f"{field}{self._token}{text}"

    @property
    def marks(self) -> dict[str, bytes]:
        """What must not be found."""
        return {field: self.marked(field).encode() for field in _FIELDS}


async def say(session: Stub, said: Said, number: int) -> None:
    """Leaves something of a user wherever the service keeps something; some of it doesn't fit into its row."""
    session_id = await open_session(
        session,
        user_id=said.marked("user"),
        display_name=said.marked("name"),
        metadata=struct(note=said.marked("note")),
        request_id=new_id(),
    )
    update = session_pb2.Session(session_id=session_id, metadata=struct(note=said.marked("note"), more=True))
    await session.UpdateSession(
        pb.UpdateSessionRequest(session=update, update_mask=FieldMask(paths=["metadata"]), request_id=new_id())
    )
    long = " ".join(secrets.token_hex(4) for _ in range(3_000 if number % 5 == 0 else 5))
    first = append(session_id, said.marked("text", f" {number} {long}"), request_id=new_id())
    first.messages[0].author = said.marked("author")
    await session.AppendMessages(first)
    await session.BeginTurn(turn(session_id, said.marked("text", " again")))
    change = pb.WorkspaceChange(key=said.marked("key"), value=wire.to_value(said.marked("value")))
    for _ in range(2):
        await session.SetWorkspaceEntries(
            pb.SetWorkspaceEntriesRequest(session_id=session_id, changes=[change], request_id=new_id())
        )


async def prove(own: ClonedDatabase, capfd: pytest.CaptureFixture[str], *, count: int) -> None:
    """Hears two users, erases one, and looks for both."""
    gone, kept = Said(), Said()
    tenant_id: UUID = uuid4()
    folder = own.postgres.log_path.parent
    async with serving(own) as served, gateway(served, tenant_id) as session:
        for number in range(count):
            await say(session, gone, number)
        await say(session, kept, 0)
        connection = await asyncpg.connect(own.admin_dsn)
        # Statistics are a place where words may stay.
        await connection.execute("ANALYZE; CHECKPOINT")
        await connection.close()
        assert all((await asyncio.to_thread(traces, folder, gone.marks)).values())
        erase = pb.EraseSubjectRequest(user_id=gone.marked("user"), request_id=new_id())
        receipt = (await session.EraseSubject(erase)).receipt
        assert (receipt.session_count, receipt.message_count, receipt.workspace_entry_count) == (
            count,
            2 * count,
            count,
        )
        await clear_away(own.admin_dsn)
        assert await asyncio.to_thread(traces, folder, gone.marks) == {name: set() for name in gone.marks}
        # The look itself works: what was not erased is there.
        assert all((await asyncio.to_thread(traces, folder, kept.marks)).values())
    logged = "".join(capfd.readouterr())
    assert "EraseSubject" in logged
    assert not any(mark.decode() in logged for mark in gone.marks.values())


async def test_no_byte_is_left(own: ClonedDatabase, capfd: pytest.CaptureFixture[str]) -> None:
    await prove(own, capfd, count=10)


@pytest.mark.faults
@pytest.mark.timeout(600)
async def test_no_byte_is_left_of_many(own: ClonedDatabase, capfd: pytest.CaptureFixture[str]) -> None:
    await prove(own, capfd, count=300)
