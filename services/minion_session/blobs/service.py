"""What callers do with blobs."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import structlog
from minion_auth import tenant
from minion_errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    MinionError,
    NotFound,
    ResourceExhausted,
    Violation,
)
from uuid_utils.compat import uuid7

from minion_session.blobs.domain import Blob, BlobRange, NewBlob, Pieces, blob_not_found, slices
from minion_session.blobs.store import BlobStore


class Blobs:
    """The blobs of sessions, in the caller's tenant."""

    def __init__(self, store: BlobStore, *, limit_bytes: int) -> None:
        self._store = store
        self._limit_bytes = limit_bytes
        self._dropping: set[asyncio.Task[None]] = set()

    async def put(self, new: NewBlob, chunks: AsyncIterator[bytes]) -> Blob:
        """Stores a blob as its bytes come; all or nothing.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`).
            FailedPrecondition: it takes no blobs (`SESSION_NOT_ACTIVE`).
            ResourceExhausted: more bytes came than a blob may have (`BLOB_TOO_LARGE`).
            InvalidArgument: they aren't what the header promised.
        """
        if new.size_bytes is not None and new.size_bytes > self._limit_bytes:
            raise self._too_large()
        tenant_id, blob_id = tenant(), uuid7()
        kept = False
        try:
            await self._store.begin(tenant_id, blob_id, new.session_id)
            pieces, place = Pieces(), 0
            async for chunk in chunks:
                full = pieces.add(chunk)
                if pieces.size > self._limit_bytes:
                    raise self._too_large()
                if new.size_bytes is not None and pieces.size > new.size_bytes:
                    _check(new, pieces)
                if full:
                    await self._store.add(tenant_id, blob_id, place, full)
                    place += len(full)
            _check(new, pieces)
            # A call that is cancelled looks like a stream that has ended, until the cancellation comes a moment later:
            # it finds us here, before the blob is anybody's.
            await self._store.add(tenant_id, blob_id, place, pieces.rest())
            # With a promise kept the stream was whole: then a call that is cancelled from here on leaves the blob to
            # whoever tries again, who may have been given it already.
            kept = new.size_bytes is not None or new.sha256 is not None
            try:
                blob = await self._store.keep(tenant_id, blob_id, new, pieces.size, pieces.sha256())
            except (NotFound, FailedPrecondition, DeadlineExceeded):
                kept = False
                raise
            kept = True
            return blob
        finally:
            if not kept:
                # In a task of its own: the caller may have gone, and its call with it. What is left, a worker drops.
                dropping = asyncio.create_task(self._drop(tenant_id, blob_id, new.session_id))
                self._dropping.add(dropping)
                dropping.add_done_callback(self._dropping.discard)

    async def get(self, wanted: BlobRange) -> tuple[Blob, AsyncIterator[bytes]]:
        """Gives what a blob is, and its bytes in the wanted range as they are asked for.

        Raises:
            NotFound: there is no such blob, or not in that session (`BLOB_NOT_FOUND`).
            InvalidArgument: the range begins past the end.
        """
        tenant_id = tenant()
        blob = await self._store.get(tenant_id, wanted.blob_id, wanted.session_id)
        if blob is None:
            raise blob_not_found(wanted.blob_id)
        if wanted.offset > blob.size_bytes:
            raise InvalidArgument(
                "The range begins past the end.",
                metadata={"size_bytes": str(blob.size_bytes)},
                violations=[Violation("offset", f"must be at most {blob.size_bytes}")],
            )

        async def read() -> AsyncIterator[bytes]:
            for part in slices(blob.size_bytes, wanted.offset, wanted.length):
                found = await self._store.read(tenant_id, wanted.blob_id, part)
                if found is None:
                    # Its session was deleted meanwhile.
                    raise blob_not_found(wanted.blob_id)
                yield found

        return blob, read()

    async def _drop(self, tenant_id: UUID, blob_id: UUID, session_id: UUID) -> None:
        try:
            await self._store.drop(tenant_id, blob_id, session_id)
        except MinionError as error:
            structlog.get_logger().warning("upload not dropped", blob_id=str(blob_id), reason=error.reason)

    def _too_large(self) -> ResourceExhausted:
        return ResourceExhausted(
            f"A blob has at most {self._limit_bytes} bytes.",
            reason="BLOB_TOO_LARGE",
            metadata={"limit_bytes": str(self._limit_bytes)},
        )


def _check(new: NewBlob, pieces: Pieces) -> None:
    """Raises InvalidArgument unless the bytes are what the header promised."""
    faults = []
    if pieces.size == 0:
        faults.append(Violation("chunk", "a blob must have at least 1 byte"))
    if new.size_bytes is not None and pieces.size != new.size_bytes:
        faults.append(Violation("header.size_bytes", f"promised {new.size_bytes} bytes, {pieces.size} came"))
    elif new.sha256 is not None and pieces.sha256() != new.sha256:
        faults.append(Violation("header.sha256", f"the bytes have the SHA-256 {pieces.sha256().hex()}"))
    if faults:
        raise InvalidArgument("The bytes aren't what the header promised.", violations=faults)
