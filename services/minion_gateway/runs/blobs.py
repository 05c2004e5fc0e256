"""The session's blobs, as large results are kept in them and read back."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import grpc
from minion.session.v1 import (
    blob_service_pb2,
    blob_service_pb2_grpc,
)
from minion_grpc import peer_call

_CHUNK = 256 * 1024
_PUT_SECONDS = 60.0
_READ_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class BlobRange:
    """Some bytes of a blob, and what it is."""

    media_type: str
    size_bytes: int
    data: bytes


class BlobPeer:
    """Calls act for the caller in hand, as `minion_auth` knows it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._blobs: blob_service_pb2_grpc.BlobServiceAsyncStub = blob_service_pb2_grpc.BlobServiceStub(channel)

    async def put(
        self, session_id: UUID, data: bytes, *, media_type: str, name: str, sha256: str, seconds: float
    ) -> str:
        """Stores bytes in a session and returns the blob's id; the same bytes again are the same blob."""
        header = blob_service_pb2.BlobHeader(
            session_id=str(session_id), media_type=media_type, name=name, size_bytes=len(data), sha256=sha256
        )

        async def pieces() -> AsyncIterator[blob_service_pb2.PutBlobRequest]:
            yield blob_service_pb2.PutBlobRequest(header=header)
            for start in range(0, len(data), _CHUNK):
                yield blob_service_pb2.PutBlobRequest(chunk=data[start : start + _CHUNK])

        call = self._blobs.PutBlob(pieces(), timeout=min(_PUT_SECONDS, seconds))
        try:
            with peer_call("session"):
                answer = await call
        finally:
            # gRPC never collects a stream that was left.
            call.cancel()
        return answer.blob.blob_id

    async def read(self, session_id: UUID, blob_id: str, *, offset: int, length: int) -> BlobRange:
        """Reads a range of a blob that a session has, of itself or from what it was forked from.

        Raises NotFound (BLOB_NOT_FOUND) for any other, whoever's it is.
        """
        request = blob_service_pb2.GetBlobRequest(
            blob_id=blob_id, offset=offset, length=length, session_id=str(session_id)
        )
        call = self._blobs.GetBlob(request, timeout=_READ_SECONDS)
        data = bytearray()
        media_type, size = "", 0
        try:
            with peer_call("session"):
                async for answer in call:
                    if answer.HasField("blob"):
                        media_type, size = answer.blob.media_type, answer.blob.size_bytes
                    else:
                        data += answer.chunk
        finally:
            call.cancel()
        return BlobRange(media_type, size, bytes(data))
