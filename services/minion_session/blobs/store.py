"""Blobs in Postgres: each step is one function and one round trip, and no transaction waits for the network."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from minion_errors import DeadlineExceeded
from minion_postgres import Database, Record, queries

from minion_session.blobs.domain import Blob, NewBlob, Slice
from minion_session.sessions.domain import SessionStatus, not_active, not_found

_QUERIES = queries.load(__package__)


class BlobStore:
    """Reads and writes blobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, tenant_id: UUID, blob_id: UUID, session_id: UUID) -> None:
        """Makes room for a blob that is coming.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`).
            FailedPrecondition: it takes no blobs (`SESSION_NOT_ACTIVE`).
        """
        row = await self._database.fetch_one(_QUERIES.begin_upload, tenant_id, session_id, blob_id)
        assert row is not None
        _check(row, session_id)

    async def add(self, tenant_id: UUID, blob_id: UUID, first: int, pieces: Sequence[bytes]) -> None:
        """Keeps pieces of a blob that is coming, from the place `first` on.

        Raises:
            DeadlineExceeded: it was given up, or its session was deleted (`DEADLINE_EXCEEDED`).
        """
        if not await self._database.fetch_value(_QUERIES.add_chunks, tenant_id, blob_id, first, pieces):
            raise _given_up(blob_id)

    async def keep(self, tenant_id: UUID, blob_id: UUID, new: NewBlob, size: int, sha256: bytes) -> Blob:
        """Makes a blob whose bytes are all there its session's, or gives the one that has the same bytes.

        Raises:
            NotFound: the session was deleted (`SESSION_NOT_FOUND`).
            FailedPrecondition: it takes no blobs any more (`SESSION_NOT_ACTIVE`).
            DeadlineExceeded: the blob was given up (`DEADLINE_EXCEEDED`).
        """
        row = await self._database.fetch_one(
            _QUERIES.keep_blob, tenant_id, new.session_id, blob_id, size, sha256, new.media_type, new.name
        )
        assert row is not None
        if row["outcome"] == "UPLOAD_GIVEN_UP":
            raise _given_up(blob_id)
        _check(row, new.session_id)
        return _blob_from_row(row)

    async def drop(self, tenant_id: UUID, blob_id: UUID, session_id: UUID) -> None:
        """Drops a blob whose call was broken off, even where it came whole at the last moment."""
        await self._database.execute(_QUERIES.drop_upload, tenant_id, blob_id, session_id)

    async def drop_left(self, tenant_id: UUID, blob_id: UUID, age: timedelta) -> bool:
        """Drops a blob that is on its way in, unless it moved within an age; says whether it did."""
        return bool(await self._database.fetch_value(_QUERIES.drop_upload_left, tenant_id, blob_id, age))

    async def left(self, age: timedelta, most: int) -> list[tuple[UUID, UUID]]:
        """Lists blobs of all tenants that haven't moved for an age: tenant and blob."""
        rows = await self._database.fetch(_QUERIES.uploads_left, age, most)
        return [(row["tenant_id"], row["blob_id"]) for row in rows]

    async def get(self, tenant_id: UUID, blob_id: UUID, session_id: UUID | None) -> Blob | None:
        """Reads what a blob is, if there is one, and this session has it where one is named."""
        row = await self._database.fetch_one(_QUERIES.get_blob, tenant_id, blob_id, session_id)
        return _blob_from_row(row) if row is not None and row["blob_id"] is not None else None

    async def read(self, tenant_id: UUID, blob_id: UUID, wanted: Slice) -> bytes | None:
        """Reads a part of a piece; None when the blob is gone."""
        found: bytes | None = await self._database.fetch_value(
            _QUERIES.read_chunk, tenant_id, blob_id, wanted.piece, wanted.start, wanted.length
        )
        return found


def _check(row: Record, session_id: UUID) -> None:
    match row["outcome"]:
        case "OK":
            return
        case "SESSION_NOT_FOUND":
            raise not_found(session_id)
        case "SESSION_NOT_ACTIVE":
            raise not_active(session_id, SessionStatus(row["status"]))
        case outcome:
            raise ValueError(f"the database answered {outcome!r}, which this release doesn't know")


def _given_up(blob_id: UUID) -> DeadlineExceeded:
    return DeadlineExceeded(
        "The blob came too slowly and was given up.", reason="DEADLINE_EXCEEDED", metadata={"blob_id": str(blob_id)}
    )


def _blob_from_row(row: Record) -> Blob:
    return Blob(
        blob_id=row["blob_id"],
        session_id=row["session_id"],
        media_type=row["media_type"],
        name=row["name"],
        size_bytes=row["size_bytes"],
        sha256=row["sha256"],
        create_time=row["create_time"],
    )
