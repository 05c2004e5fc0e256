"""EraseSubject: what is kept of a user goes, and nothing of anybody else's."""

import asyncio
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from minion.session.v1 import session_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_grpc import wire
from minion_postgres import Database
from minion_session.erasure import service
from minion_testing.errors import refused

from tests.minion_session.made import append, new_id, open_session, source, struct, turn
from tests.minion_session.stage import Stub, give_large_blob

CANARY = "canary-7f3a"
_TABLES = ("sessions", "messages", "workspace_entries", "idempotency_keys", "changes", "told_activity")


async def erase(session: Stub, user_id: str, **fields: str) -> pb.ErasureReceipt:
    return (await session.EraseSubject(pb.EraseSubjectRequest(user_id=user_id, **fields))).receipt


async def speak(session: Stub, owner: Database, tenant_id: UUID, user_id: str = CANARY) -> str:
    """Leaves something of a user wherever the service keeps something."""
    session_id = await open_session(
        session,
        user_id=user_id,
        display_name=f"{CANARY} chat",
        metadata=struct(note=CANARY),
        request_id=new_id(),
    )
    await session.UpdateSession(
        pb.UpdateSessionRequest(
            session=session_pb2.Session(session_id=session_id, metadata=struct(note=CANARY, more=True)),
            update_mask=FieldMask(paths=["metadata"]),
            request_id=new_id(),
        )
    )
    await session.ExtendSession(pb.ExtendSessionRequest(session_id=session_id, request_id=new_id()))
    await session.AppendMessages(append(session_id, CANARY, request_id=new_id()))
    begin = turn(session_id, CANARY)
    await session.BeginTurn(begin)
    await session.AppendMessages(append(session_id, CANARY, source=source(begin.source.run_id, 2), release_hold=True))
    change = pb.WorkspaceChange(key=f"of {CANARY}", value=wire.to_value(CANARY))
    await session.SetWorkspaceEntries(
        pb.SetWorkspaceEntriesRequest(session_id=session_id, changes=[change], request_id=new_id())
    )
    await owner.execute("SELECT session.tell_active($1, $2)", tenant_id, [UUID(session_id)])
    await session.CloseSession(pb.CloseSessionRequest(session_id=session_id, request_id=new_id()))
    await session.ArchiveSession(pb.ArchiveSessionRequest(session_id=session_id, request_id=new_id()))
    return session_id


async def canaries(owner: Database, tenant_id: UUID) -> dict[str, int]:
    """Counts the rows of each table in which something of the user stands."""
    found = {}
    for table in _TABLES:
        count = f"SELECT count(*) FROM session.{table} t WHERE tenant_id = $1 AND t::text LIKE '%' || $2 || '%'"  # noqa: S608 - names of ours
        found[table] = int(await owner.fetch_value(count, tenant_id, CANARY))
    return {table: count for table, count in found.items() if count}


async def test_nothing_of_an_erased_user_is_left(
    session: Stub, stranger: Stub, owner: Database, tenant_id: UUID
) -> None:
    others = [await open_session(session, user_id="grace"), await open_session(stranger, user_id=CANARY)]
    for _ in range(3):
        await speak(session, owner, tenant_id)
    before = await canaries(owner, tenant_id)
    assert before == {"sessions": 3, "messages": 9, "workspace_entries": 3, "idempotency_keys": 18}
    receipt = await erase(session, CANARY)
    assert await canaries(owner, tenant_id) == {}
    assert (receipt.session_count, receipt.message_count, receipt.workspace_entry_count) == (3, 9, 3)
    assert receipt.stored_reply_count == 18
    assert (receipt.blob_count, receipt.summary_count) == (0, 0)
    assert UUID(receipt.erasure_id)
    assert receipt.HasField("erase_time")
    page = await session.ListSessions(pb.ListSessionsRequest())
    assert [one.session_id for one in page.sessions] == others[:1]
    assert len((await stranger.ListSessions(pb.ListSessionsRequest())).sessions) == 1


async def test_every_deletion_is_told(session: Stub, owner: Database, tenant_id: UUID) -> None:
    session_id = await open_session(session, user_id=CANARY)
    await erase(session, CANARY)
    kinds = await owner.fetch("SELECT kind FROM session.changes WHERE resource_id = $1 ORDER BY id", UUID(session_id))
    assert [row["kind"] for row in kinds] == ["created", "deleted"]


async def test_a_repeated_erasure_counts_nothing_twice(session: Stub, owner: Database, tenant_id: UUID) -> None:
    await speak(session, owner, tenant_id)
    request_id = new_id()
    first = await erase(session, CANARY, request_id=request_id)
    again = await erase(session, CANARY, request_id=request_id)
    assert first.erasure_id == again.erasure_id == request_id
    assert (first.session_count, again.session_count) == (1, 0)
    assert again.stored_reply_count == 0


async def test_a_user_that_nobody_knows_is_erased_too(session: Stub) -> None:
    receipt = await erase(session, "nobody")
    assert receipt.session_count == receipt.message_count == 0


async def test_much_is_erased_step_by_step(session: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_STEP", 3)
    for _ in range(5):
        session_id = await open_session(session, user_id=CANARY)
        await session.AppendMessages(append(session_id, "a", "b"))
    receipt = await erase(session, CANARY)
    assert (receipt.session_count, receipt.message_count) == (5, 10)


async def test_blobs_are_erased_some_at_a_time(session: Stub, owner: Database, tenant_id: UUID) -> None:
    # What a statement deletes is bounded in bytes as well: of gigabytes it would never come to an end.
    for _ in range(5):
        await give_large_blob(owner, tenant_id, await open_session(session, user_id=CANARY))
    step = await owner.fetch_one("SELECT * FROM session.erase_subject($1, $2, 10000)", tenant_id, CANARY)
    assert step is not None
    assert (step["is_done"], step["sessions"], step["blobs"]) == (False, 2, 2)
    receipt = await erase(session, CANARY)
    assert (receipt.session_count, receipt.blob_count) == (3, 3)


async def test_erasures_at_once_count_each_thing_once(session: Stub) -> None:
    for _ in range(10):
        session_id = await open_session(session, user_id=CANARY)
        await session.AppendMessages(append(session_id, "a", "b"))
    receipts = await asyncio.gather(*[erase(session, CANARY) for _ in range(4)])
    assert sum(receipt.session_count for receipt in receipts) == 10
    assert sum(receipt.message_count for receipt in receipts) == 20


async def test_a_run_of_an_erased_user_is_told(session: Stub) -> None:
    session_id = await open_session(session, user_id=CANARY)
    begin = turn(session_id)
    await session.BeginTurn(begin)
    await erase(session, CANARY)
    async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        await session.AppendMessages(append(session_id, "answer", source=source(begin.source.run_id, 2)))


@pytest.mark.parametrize(
    ("fields", "faulty"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": "u" * 201}, "user_id"),
        ({"user_id": "a\0b"}, "user_id"),
        ({"request_id": "1"}, "request_id"),
    ],
)
async def test_erase_refuses_what_breaks_a_limit(session: Stub, fields: dict[str, Any], faulty: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await session.EraseSubject(pb.EraseSubjectRequest(**{"user_id": "ada", **fields}))
    assert set(refusal.violations) == {faulty}
