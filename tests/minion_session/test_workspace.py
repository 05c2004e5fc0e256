"""Working memory: set, read and deleted by key, each key with a version of its own."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Value
from minion.session.v1 import session_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_grpc import wire
from minion_testing.errors import refused

from tests.minion_session.made import new_id, open_session, seconds, turn
from tests.minion_session.stage import Stub

Change = Callable[[str], Awaitable[None]]


def change(key: str, value: Any, expected: int | None = None) -> pb.WorkspaceChange:
    return pb.WorkspaceChange(key=key, value=wire.to_value(value), expected_version=expected)


async def put(
    session: Stub, session_id: str, *changes: pb.WorkspaceChange, **fields: Any
) -> list[session_pb2.WorkspaceEntry]:
    request = pb.SetWorkspaceEntriesRequest(session_id=session_id, changes=changes, **fields)
    return list((await session.SetWorkspaceEntries(request)).entries)


async def delete(session: Stub, session_id: str, *keys: str, **fields: Any) -> int:
    request = pb.DeleteWorkspaceEntriesRequest(session_id=session_id, keys=keys, **fields)
    return (await session.DeleteWorkspaceEntries(request)).deleted_count


async def get(session: Stub, session_id: str, *keys: str) -> list[session_pb2.WorkspaceEntry]:
    return list((await session.GetWorkspace(pb.GetWorkspaceRequest(session_id=session_id, keys=keys))).entries)


async def test_entries_read_as_they_were_set(session: Stub) -> None:
    session_id = await open_session(session)
    assert await get(session, session_id) == []
    entries = await put(
        session,
        session_id,
        change("plan", {"steps": ["a", {"b": None}], "cost": 1.5}),
        change("nothing", None),
        change("done", False),
        change("Ω", ""),
    )
    assert [(entry.key, entry.version) for entry in entries] == [("plan", 1), ("nothing", 1), ("done", 1), ("Ω", 1)]
    read = await get(session, session_id)
    assert sorted(read, key=lambda entry: entry.key) == sorted(entries, key=lambda entry: entry.key)
    assert [entry.key for entry in read] == [entry.key for entry in await get(session, session_id)]
    assert [entry.key for entry in await get(session, session_id, "plan", "absent")] == ["plan"]
    assert await get(session, session_id, "absent") == []


async def test_each_entry_has_its_own_version(session: Stub) -> None:
    session_id = await open_session(session)
    await put(session, session_id, change("a", 1), change("b", 1))
    (second,) = await put(session, session_id, change("a", 2, expected=1))
    assert second.version == 2
    async with refused(grpc.StatusCode.ABORTED, "WORKSPACE_VERSION_MOVED") as refusal:
        await put(session, session_id, change("b", 2), change("a", 3, expected=1))
    assert refusal.metadata == {"key": "a", "version": "2"}
    entries = await get(session, session_id)
    assert [(entry.key, entry.value.number_value, entry.version) for entry in entries] == [("a", 2, 2), ("b", 1, 1)]


async def test_expecting_version_zero_expects_no_entry(session: Stub) -> None:
    session_id = await open_session(session)
    await put(session, session_id, change("a", 1, expected=0))
    async with refused(grpc.StatusCode.ABORTED, "WORKSPACE_VERSION_MOVED") as refusal:
        await put(session, session_id, change("a", 2, expected=0))
    assert refusal.metadata == {"key": "a", "version": "1"}
    async with refused(grpc.StatusCode.ABORTED, "WORKSPACE_VERSION_MOVED") as refusal:
        await put(session, session_id, change("new", 1, expected=3))
    assert refusal.metadata == {"key": "new", "version": "0"}


async def test_a_replayed_set_changes_nothing(session: Stub) -> None:
    session_id, request_id = await open_session(session), new_id()
    first = await put(session, session_id, change("a", {"n": 1}, expected=0), request_id=request_id)
    await put(session, session_id, change("a", {"n": 2}))
    assert await put(session, session_id, change("a", {"n": 1}, expected=0), request_id=request_id) == first
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await put(session, session_id, change("a", {"n": 3}), request_id=request_id)
    (entry,) = await get(session, session_id)
    assert (entry.value, entry.version) == (wire.to_value({"n": 2}), 2)


async def test_deleted_entries_are_gone_and_absent_ones_passed_over(session: Stub) -> None:
    session_id, request_id = await open_session(session), new_id()
    await put(session, session_id, change("a", 1), change("b", 1), change("c", 1))
    assert await delete(session, session_id, "a", "b", "absent", request_id=request_id) == 2
    assert await delete(session, session_id, "a") == 0
    await put(session, session_id, change("b", 2))
    assert await delete(session, session_id, "a", "b", "absent", request_id=request_id) == 2
    assert [entry.key for entry in await get(session, session_id)] == ["b", "c"]
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await delete(session, session_id, "c", request_id=request_id)
    (entry,) = await put(session, session_id, change("a", 1))
    assert entry.version == 1


async def test_a_workspace_holds_a_thousand_entries(session: Stub) -> None:
    session_id = await open_session(session)
    for hundred in range(10):
        await put(session, session_id, *[change(f"{hundred}-{number}", number) for number in range(100)])
    async with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "WORKSPACE_FULL") as refusal:
        await put(session, session_id, change("0-0", 0), change("one more", 0))
    assert refusal.metadata["limit"] == "1000"
    (entry,) = await put(session, session_id, change("0-0", "replaced"))
    assert entry.version == 2
    assert len(await get(session, session_id)) == 1_000
    await delete(session, session_id, "0-1")
    await put(session, session_id, change("one more", 0))


async def test_a_workspace_fits_one_reply(session: Stub) -> None:
    session_id = await open_session(session)
    large = "x" * 65_000
    await put(session, session_id, *[change(str(number), large) for number in range(32)])
    async with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "WORKSPACE_FULL") as refusal:
        await put(session, session_id, change("one more", large))
    assert refusal.metadata["limit_bytes"] == str(2 * 1024 * 1024)
    await put(session, session_id, change("0", large))
    assert len(await get(session, session_id)) == 32


async def test_a_session_that_ended_keeps_its_workspace_as_it_is(session: Stub, expire: Change) -> None:
    closed, expired = await open_session(session), await open_session(session, ttl=seconds(60))
    for session_id in (closed, expired):
        await put(session, session_id, change("a", 1))
    await session.CloseSession(pb.CloseSessionRequest(session_id=closed))
    await expire(expired)
    for session_id, status in ((closed, "CLOSED"), (expired, "EXPIRED")):
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_ACTIVE") as refusal:
            await put(session, session_id, change("a", 2))
        assert refusal.metadata["status"] == status
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_ACTIVE"):
            await delete(session, session_id, "a")
        assert len(await get(session, session_id)) == 1


async def test_a_held_session_takes_entries_though_it_closed(session: Stub, lapse: Change) -> None:
    session_id = await open_session(session)
    await session.BeginTurn(turn(session_id))
    await session.CloseSession(pb.CloseSessionRequest(session_id=session_id))
    await put(session, session_id, change("a", 1))
    assert await delete(session, session_id, "a") == 1
    await lapse(session_id)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_ACTIVE"):
        await put(session, session_id, change("a", 2))


async def test_an_absent_session_and_a_foreign_one_have_no_workspace(session: Stub, stranger: Stub) -> None:
    session_id = await open_session(session)
    await put(session, session_id, change("a", 1))
    for stub, wanted in ((session, new_id()), (stranger, session_id)):
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
            await get(stub, wanted)
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
            await get(stub, wanted, "a")
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
            await put(stub, wanted, change("a", 2))
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
            await delete(stub, wanted, "a")


@pytest.mark.parametrize(
    ("changes", "faulty"),
    [
        ([], {"changes"}),
        ([change(str(number), 1) for number in range(101)], {"changes"}),
        ([change("a", 1), change("a", 2)], {"changes"}),
        ([change("", 1)], {"changes[0].key"}),
        ([change("k" * 201, 1)], {"changes[0].key"}),
        ([change("a", 1), change("\0", 1)], {"changes[1].key"}),
        ([pb.WorkspaceChange(key="a")], {"changes[0].value"}),
        ([change("a", "x" * (64 * 1024 - 1))], {"changes[0].value"}),
        ([change("a", {"b": "\0"})], {"changes[0].value.b"}),
        ([pb.WorkspaceChange(key="a", value=Value(number_value=float("nan")))], {"changes[0].value"}),
    ],
)
async def test_set_refuses_what_breaks_a_limit(
    session: Stub, changes: list[pb.WorkspaceChange], faulty: set[str]
) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await put(session, await open_session(session), *changes)
    assert set(refusal.violations) == faulty


async def test_set_takes_what_meets_each_limit(session: Stub) -> None:
    session_id = await open_session(session)
    largest = change("k" * 200, "x" * (64 * 1024 - 2))
    await put(session, session_id, largest, *[change(str(number), number) for number in range(99)])
    (entry,) = await get(session, session_id, "k" * 200)
    assert entry.value == largest.value


async def test_get_and_delete_refuse_what_breaks_a_limit(session: Stub) -> None:
    session_id = await open_session(session)
    for keys, faulty in (
        ([str(number) for number in range(101)], {"keys"}),
        (["a", ""], {"keys[1]"}),
        (["k" * 201], {"keys[0]"}),
        (["\0"], {"keys[0]"}),
    ):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
            await get(session, session_id, *keys)
        assert set(refusal.violations) == faulty
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
            await delete(session, session_id, *keys)
        assert set(refusal.violations) == faulty
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await delete(session, "x", request_id="x")
    assert set(refusal.violations) == {"session_id", "keys", "request_id"}
