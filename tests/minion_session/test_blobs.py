"""Blobs: streamed in, stored once, read by range; and nothing of one that didn't come whole."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st
from minion.session.v1 import blob_service_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_postgres import Database
from minion_session.blobs.domain import PIECE_BYTES, NewBlob, Pieces, slices
from minion_session.blobs.store import BlobStore
from minion_session.blobs.worker import UploadsLeft
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served
from uuid_utils.compat import uuid7

from tests.minion_session.made import chunked, got, header, new_id, open_session, put, sent, turn
from tests.minion_session.stage import Blobs, Stub, blob_gateway, eventually, gateway, serving

Change = Callable[[str], Awaitable[None]]
MEBI = 1024 * 1024


def _bytes(count: int) -> bytes:
    """Makes bytes of which no two pieces are alike."""
    return b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(-(-count // 32)))[:count]


async def _rows(owner: Database, tenant_id: UUID) -> tuple[int, int, int]:
    """Counts what is stored of blobs in a tenant: entries, contents, chunks."""
    counts = [
        await owner.fetch_value(f"SELECT count(*) FROM session.{table} WHERE tenant_id = $1", tenant_id)  # noqa: S608
        for table in ("blobs", "blob_contents", "blob_chunks")
    ]
    return counts[0], counts[1], counts[2]


async def _until_nothing_is_left(owner: Database, tenant_id: UUID) -> None:
    async def nothing() -> bool:
        return await _rows(owner, tenant_id) == (0, 0, 0)

    await eventually(nothing)


async def test_a_blob_reads_as_it_was_put(session: Stub, blobs: Blobs) -> None:
    session_id, data = await open_session(session), b"some bytes"
    blob = await put(blobs, session_id, data, media_type="application/json", name="result.json")
    assert (blob.session_id, blob.media_type, blob.name) == (session_id, "application/json", "result.json")
    assert (blob.size_bytes, blob.sha256) == (10, hashlib.sha256(data).hexdigest())
    assert blob.create_time.seconds > 0
    assert await got(blobs, blob.blob_id) == (blob, [data])


async def test_twelve_megabytes_are_stored_once_and_read_by_range(
    session: Stub, blobs: Blobs, owner: Database, tenant_id: UUID
) -> None:
    session_id, data = await open_session(session), _bytes(12 * MEBI + 12_345)
    digest = hashlib.sha256(data).hexdigest()
    blob = await put(blobs, session_id, data, size_bytes=len(data), sha256=digest.upper())
    assert (blob.size_bytes, blob.sha256) == (len(data), digest)
    told, chunks = await got(blobs, blob.blob_id)
    assert told == blob
    assert b"".join(chunks) == data
    assert max(map(len, chunks)) <= 262_144
    for offset, length in ((0, 1), (262_143, 2), (5_000_000, 600_000), (len(data) - 3, 0), (len(data) - 3, 100)):
        _, part = await got(blobs, blob.blob_id, offset=offset, length=length)
        assert b"".join(part) == data[offset : offset + length if length else None]
    assert (await got(blobs, blob.blob_id, offset=len(data)))[1] == []
    # The same bytes are stored once, in whatever chunks they come.
    again = (await blobs.PutBlob(sent([header(session_id, name="other"), *chunked(data, 777_777)]))).blob
    assert again == blob
    assert await _rows(owner, tenant_id) == (1, 1, -(-len(data) // PIECE_BYTES))


async def test_health_and_reflection_know_the_service(replica: Served) -> None:
    async with grpc.aio.insecure_channel(replica.address) as channel:
        asked = health_pb2.HealthCheckRequest(service="minion.session.v1.BlobService")
        answer = await health_pb2_grpc.HealthStub(channel).Check(asked)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        listing = reflection_pb2.ServerReflectionRequest(list_services="")
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([listing]))
        names = {one.name for one in (await call.read()).list_services_response.service}
        assert {"minion.session.v1.BlobService", "minion.session.v1.SessionService"} <= names
        call.cancel()


async def test_another_session_has_a_blob_of_its_own(session: Stub, blobs: Blobs) -> None:
    first = await put(blobs, await open_session(session))
    second = await put(blobs, await open_session(session))
    assert first.blob_id != second.blob_id
    assert first.sha256 == second.sha256


@pytest.mark.parametrize(
    ("fields", "data", "faulty"),
    [
        ({"size_bytes": 11}, b"some bytes", {"header.size_bytes"}),
        ({"size_bytes": 9}, b"some bytes", {"header.size_bytes"}),
        ({"sha256": "0" * 64}, b"some bytes", {"header.sha256"}),
        ({}, b"", {"chunk"}),
        ({"size_bytes": 2}, b"", {"chunk", "header.size_bytes"}),
        ({"size_bytes": 0}, b"", {"header.size_bytes"}),
        ({"session_id": "x"}, b"some bytes", {"header.session_id"}),
        ({"media_type": ""}, b"some bytes", {"header.media_type"}),
        ({"media_type": "x" * 128}, b"some bytes", {"header.media_type"}),
        ({"name": "x" * 201}, b"some bytes", {"header.name"}),
        ({"sha256": "0" * 63}, b"some bytes", {"header.sha256"}),
        ({"sha256": "g" * 64}, b"some bytes", {"header.sha256"}),
    ],
)
async def test_what_breaks_its_promise_or_a_limit_leaves_nothing(
    session: Stub,
    blobs: Blobs,
    owner: Database,
    tenant_id: UUID,
    fields: dict[str, Any],
    data: bytes,
    faulty: set[str],
) -> None:
    session_id = await open_session(session)
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await put(blobs, session_id, data, **fields)
    assert set(refusal.violations) == faulty
    await _until_nothing_is_left(owner, tenant_id)


async def test_the_header_comes_first_and_once(session: Stub, blobs: Blobs, owner: Database, tenant_id: UUID) -> None:
    session_id = await open_session(session)
    first, (chunk,) = header(session_id), chunked(b"bytes")
    nothing, empty = blob_service_pb2.PutBlobRequest(), blob_service_pb2.PutBlobRequest(chunk=b"")
    large = blob_service_pb2.PutBlobRequest(chunk=b"x" * (MEBI + 1))
    streams = {
        "header": ([], [chunk], [nothing], [first, chunk, first]),
        "chunk": ([first, nothing], [first, empty], [first, chunk, large]),
    }
    for field, faulty in streams.items():
        for requests in faulty:
            async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
                await blobs.PutBlob(sent(requests))
            assert set(refusal.violations) == {field}
    await _until_nothing_is_left(owner, tenant_id)
    await blobs.PutBlob(sent([first, blob_service_pb2.PutBlobRequest(chunk=b"x" * MEBI)]))


async def test_a_blob_too_large_is_refused_and_leaves_nothing(
    postgres: ClonedDatabase, owner: Database, tenant_id: UUID
) -> None:
    limit = 1_000_000
    async with (
        serving(postgres, blob_limit_bytes=limit) as replica,
        gateway(replica, tenant_id) as session,
        blob_gateway(replica, tenant_id) as blobs,
    ):
        session_id = await open_session(session)
        for fields in ({}, {"size_bytes": limit + 1}):
            async with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "BLOB_TOO_LARGE") as refusal:
                await put(blobs, session_id, b"x" * (limit + 1), **fields)
            assert refusal.metadata == {"limit_bytes": str(limit)}
        await _until_nothing_is_left(owner, tenant_id)
        assert (await put(blobs, session_id, b"x" * limit)).size_bytes == limit


@pytest.mark.parametrize("pause", [0.0, 0.001, 0.002, 0.005, 0.01])
async def test_a_stream_that_breaks_off_leaves_nothing(
    session: Stub, blobs: Blobs, owner: Database, tenant_id: UUID, pause: float
) -> None:
    session_id, came = await open_session(session), asyncio.Event()

    async def broken() -> AsyncIterator[blob_service_pb2.PutBlobRequest]:
        yield header(session_id)
        # Whole pieces: nothing tells that more was to come.
        for request in chunked(_bytes(2 * MEBI)):
            yield request
        came.set()
        await asyncio.Event().wait()

    async def some() -> bool:
        return (await _rows(owner, tenant_id))[2] > 0

    call = blobs.PutBlob(broken())
    await came.wait()
    await eventually(some)
    await asyncio.sleep(pause)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await _until_nothing_is_left(owner, tenant_id)


async def test_what_a_dead_replica_left_is_dropped(
    replica: Served, session: Stub, blobs: Blobs, postgres: ClonedDatabase, owner: Database, tenant_id: UUID
) -> None:
    session_id = await open_session(session)
    kept = await put(blobs, session_id)
    async with await postgres.connect("session") as app:
        store, dead, busy = BlobStore(app), uuid7(), uuid7()
        for blob_id in (dead, busy):
            await store.begin(tenant_id, blob_id, UUID(session_id))
            await store.add(tenant_id, blob_id, 0, [b"bytes"])
        await owner.execute("ALTER TABLE session.blob_contents DISABLE TRIGGER blob_contents_updated_at")
        await owner.execute(
            "UPDATE session.blob_contents SET updated_at = now() - interval '2 hours' WHERE blob_id = ANY ($1)",
            [dead, UUID(kept.blob_id)],
        )
        await owner.execute("ALTER TABLE session.blob_contents ENABLE TRIGGER blob_contents_updated_at")
        assert await UploadsLeft(store, kept_seconds=3_600).drop_all() == 1
        with pytest.raises(Exception, match="given up"):
            await store.add(tenant_id, dead, 1, [b"more"])
    assert await _rows(owner, tenant_id) == (1, 2, 2)
    assert (await got(blobs, kept.blob_id))[1] == [b"bytes"]


async def test_a_session_that_takes_no_messages_takes_no_blobs(
    session: Stub, blobs: Blobs, expire: Change, lapse: Change
) -> None:
    closed, expired = await open_session(session), await open_session(session)
    await session.CloseSession(pb.CloseSessionRequest(session_id=closed))
    await expire(expired)
    for session_id, status in ((closed, "CLOSED"), (expired, "EXPIRED")):
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_ACTIVE") as refusal:
            await put(blobs, session_id)
        assert refusal.metadata["status"] == status
    # A run that holds it may finish.
    held = await open_session(session)
    await session.BeginTurn(turn(held))
    await session.CloseSession(pb.CloseSessionRequest(session_id=held))
    await put(blobs, held)
    await lapse(held)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_ACTIVE"):
        await put(blobs, held, b"others")


async def test_a_session_that_closes_amid_a_stream_keeps_nothing_of_it(
    session: Stub, blobs: Blobs, owner: Database, tenant_id: UUID
) -> None:
    session_id = await open_session(session)

    async def closing() -> AsyncIterator[blob_service_pb2.PutBlobRequest]:
        yield header(session_id)
        for request in chunked(_bytes(2 * MEBI)):
            yield request
        await session.CloseSession(pb.CloseSessionRequest(session_id=session_id))

    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_ACTIVE"):
        await blobs.PutBlob(closing())
    await _until_nothing_is_left(owner, tenant_id)


async def test_an_absent_session_and_a_foreign_one_take_no_blobs(session: Stub, blobs: Blobs, replica: Served) -> None:
    session_id = await open_session(session)
    async with blob_gateway(replica, uuid7()) as stranger:
        for stub, wanted in ((blobs, new_id()), (stranger, session_id)):
            async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
                await put(stub, wanted)


async def test_an_absent_blob_and_a_foreign_one_are_not_found(session: Stub, blobs: Blobs, replica: Served) -> None:
    blob = await put(blobs, await open_session(session))
    async with blob_gateway(replica, uuid7()) as stranger:
        for stub, wanted in ((blobs, new_id()), (stranger, blob.blob_id)):
            async with refused(grpc.StatusCode.NOT_FOUND, "BLOB_NOT_FOUND"):
                await got(stub, wanted)


async def test_a_range_that_is_none_is_refused(session: Stub, blobs: Blobs) -> None:
    blob = await put(blobs, await open_session(session), b"some bytes")
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await got(blobs, blob.blob_id, offset=11)
    assert set(refusal.violations) == {"offset"}
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await got(blobs, "x", offset=-1, length=-1)
    assert set(refusal.violations) == {"blob_id", "offset", "length"}


async def test_two_who_put_the_same_at_once_get_one_blob(
    session: Stub, blobs: Blobs, owner: Database, tenant_id: UUID
) -> None:
    session_id, data = await open_session(session), _bytes(600_000)
    stored = await asyncio.gather(*[put(blobs, session_id, data) for _ in range(6)])
    assert len({blob.blob_id for blob in stored}) == 1
    assert await _rows(owner, tenant_id) == (1, 1, 3)


@pytest.mark.parametrize("dropped", ["after", "meanwhile"])
async def test_a_blob_that_another_call_was_given_outlives_the_call_that_put_it(
    session: Stub, blobs: Blobs, postgres: ClonedDatabase, owner: Database, tenant_id: UUID, dropped: str
) -> None:
    session_id, first, second = UUID(await open_session(session)), uuid7(), uuid7()
    new = NewBlob(session_id, "text/plain", "", size_bytes=None, sha256=None)
    async with await postgres.connect("session") as app:
        store = BlobStore(app)
        for blob_id in (first, second):
            await store.begin(tenant_id, blob_id, session_id)
            await store.add(tenant_id, blob_id, 0, [b"bytes"])
        # The first call has broken off, and its last step was done all the same.
        await store.keep(tenant_id, first, new, 5, b"digest")
        if dropped == "after":
            given = await store.keep(tenant_id, second, new, 5, b"digest")
            await store.drop(tenant_id, first, session_id)
        else:
            async with owner.transaction(tenant_id) as transaction:
                await transaction.execute("SELECT session.drop_upload($1, $2, $3)", tenant_id, first, session_id)
                keeping = asyncio.create_task(store.keep(tenant_id, second, new, 5, b"digest"))
                waits = "SELECT pg_sleep(0.01), EXISTS (SELECT FROM pg_locks WHERE NOT granted) OR $1 AS it_does"
                while not (await transaction.fetch(waits, keeping.done()))[0]["it_does"]:
                    pass
            given = await keeping
    assert (await got(blobs, str(given.blob_id)))[1] == [b"bytes"]
    assert await _rows(owner, tenant_id) == (1, 1, 1)


async def test_a_deleted_session_takes_its_blobs_along(
    session: Stub, blobs: Blobs, owner: Database, tenant_id: UUID
) -> None:
    session_id = await open_session(session)
    blob = await put(blobs, session_id, _bytes(MEBI))
    await owner.execute("DELETE FROM session.sessions WHERE session_id = $1", UUID(session_id))
    assert await _rows(owner, tenant_id) == (0, 0, 0)
    async with refused(grpc.StatusCode.NOT_FOUND, "BLOB_NOT_FOUND"):
        await got(blobs, blob.blob_id)


@given(st.lists(st.integers(1, 3 * PIECE_BYTES // 2), max_size=6))
def test_pieces_are_whole_but_for_the_last(sizes: list[int]) -> None:
    pieces, data = Pieces(), [bytes([number]) * size for number, size in enumerate(sizes)]
    made = [piece for chunk in data for piece in pieces.add(chunk)]
    assert all(len(piece) == PIECE_BYTES for piece in made)
    assert bool(pieces.rest()) == bool(sizes)
    made += pieces.rest()
    assert b"".join(made) == b"".join(data)
    assert (pieces.size, pieces.sha256()) == (sum(sizes), hashlib.sha256(b"".join(data)).digest())


@given(st.integers(1, 3 * PIECE_BYTES), st.integers(0, 3 * PIECE_BYTES), st.integers(0, 3 * PIECE_BYTES))
def test_a_range_is_the_parts_of_its_pieces(size: int, offset: int, length: int) -> None:
    found = slices(size, offset, length or None)
    covered = [
        at
        for part in found
        for at in (part.piece * PIECE_BYTES + part.start, part.piece * PIECE_BYTES + part.start + part.length)
    ]
    end = min(size, offset + length) if length else size
    if offset >= end:
        assert found == []
        return
    assert (covered[0], covered[-1]) == (offset, end)
    assert covered[1:-1:2] == covered[2:-1:2]
    assert all(0 < part.length <= PIECE_BYTES and part.start + part.length <= PIECE_BYTES for part in found)
