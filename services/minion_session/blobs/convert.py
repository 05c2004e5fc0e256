"""Between the contract's blobs and the domain's."""

import re
from collections.abc import AsyncIterator

from minion.session.v1 import blob_pb2
from minion.session.v1 import blob_service_pb2 as pb
from minion_errors import Violations
from minion_grpc import wire

from minion_session.blobs.domain import Blob, BlobRange, NewBlob

_MOST_CHUNK_BYTES = 1024 * 1024
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


async def header_from_proto(requests: AsyncIterator[pb.PutBlobRequest]) -> NewBlob:
    """Reads what is coming: the first message of the stream."""
    violations = Violations()
    first = await anext(aiter(requests), pb.PutBlobRequest())
    if first.WhichOneof("piece") != "header":
        violations.stop("header", "must be the first message")
    header = first.header
    size = header.size_bytes if header.HasField("size_bytes") else None
    if size is not None and size < 1:
        violations.add("header.size_bytes", f"must be at least 1, is {size}")
    if header.sha256 and not _SHA256.fullmatch(header.sha256):
        violations.add("header.sha256", "must be 64 hexadecimal digits")
    new = NewBlob(
        session_id=violations.identifier("header.session_id", header.session_id),
        media_type=violations.length("header.media_type", header.media_type, minimum=1, maximum=127),
        name=violations.length("header.name", header.name, maximum=200),
        size_bytes=size,
        sha256=bytes.fromhex(header.sha256) if _SHA256.fullmatch(header.sha256) else None,
    )
    violations.raise_if_any()
    return new


async def chunks_from_proto(requests: AsyncIterator[pb.PutBlobRequest]) -> AsyncIterator[bytes]:
    """Reads the bytes that follow the header."""
    async for request in requests:
        violations = Violations()
        if request.WhichOneof("piece") != "chunk":
            violations.stop("header" if request.HasField("header") else "chunk", "must be bytes after the header")
        if not 1 <= len(request.chunk) <= _MOST_CHUNK_BYTES:
            violations.stop("chunk", f"must have 1 to {_MOST_CHUNK_BYTES} bytes, has {len(request.chunk)}")
        yield request.chunk


def get_from_proto(request: pb.GetBlobRequest) -> BlobRange:
    """Reads which bytes of which blob are asked for."""
    violations = Violations()
    for field in ("offset", "length"):
        if getattr(request, field) < 0:
            violations.add(field, f"must not be negative, is {getattr(request, field)}")
    blob_id = violations.identifier("blob_id", request.blob_id)
    session_id = violations.optional_identifier("session_id", request.session_id)
    violations.raise_if_any()
    return BlobRange(blob_id, request.offset, request.length or None, session_id)


def to_proto(blob: Blob) -> blob_pb2.Blob:
    """Writes what a blob is."""
    return blob_pb2.Blob(
        blob_id=str(blob.blob_id),
        session_id=str(blob.session_id),
        media_type=blob.media_type,
        name=blob.name,
        size_bytes=blob.size_bytes,
        sha256=blob.sha256.hex(),
        create_time=wire.to_timestamp(blob.create_time),
    )
