"""A blob: something too large for a message. It never changes, and goes with its session."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from minion_errors import NotFound

# Blobs are kept in pieces of this size, and sent so: 256 KiB.
PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class NewBlob:
    """What is coming; None where the caller doesn't know."""

    session_id: UUID
    media_type: str
    name: str
    size_bytes: int | None
    sha256: bytes | None


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored blob, as one of the sessions that have it."""

    blob_id: UUID
    session_id: UUID
    media_type: str
    name: str
    size_bytes: int
    sha256: bytes
    create_time: datetime


@dataclass(frozen=True, slots=True)
class BlobRange:
    """Which bytes of a blob are wanted, from `offset` on, all or `length`; of a session's, where one is named."""

    blob_id: UUID
    offset: int
    length: int | None
    session_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of one piece: which piece, from which of its bytes on, and how many."""

    piece: int
    start: int
    length: int


class Pieces:
    """Makes pieces of one size out of chunks of any, and counts and hashes on the way. The last is held back."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._hash = hashlib.sha256()
        self.size = 0

    def add(self, chunk: bytes) -> list[bytes]:
        """Takes a chunk and gives the pieces that are full and not the last."""
        self.size += len(chunk)
        self._hash.update(chunk)
        self._rest += chunk
        whole = max(len(self._rest) - 1, 0) // PIECE_BYTES * PIECE_BYTES
        full = [bytes(self._rest[start : start + PIECE_BYTES]) for start in range(0, whole, PIECE_BYTES)]
        del self._rest[:whole]
        return full

    def rest(self) -> list[bytes]:
        """Gives the last piece; none when no byte came."""
        return [bytes(self._rest)] if self._rest else []

    def sha256(self) -> bytes:
        """Gives the SHA-256 of all chunks."""
        return self._hash.digest()


def slices(size: int, offset: int, length: int | None) -> list[Slice]:
    """Lists the parts of pieces that a range of a blob of `size` bytes consists of."""
    end = size if length is None else min(size, offset + length)
    found: list[Slice] = []
    while offset < end:
        piece, start = divmod(offset, PIECE_BYTES)
        taken = min(PIECE_BYTES - start, end - offset)
        found.append(Slice(piece, start, taken))
        offset += taken
    return found


def blob_not_found(blob_id: UUID) -> NotFound:
    """Makes the error of a blob that the caller's tenant hasn't."""
    return NotFound("There is no such blob.", reason="BLOB_NOT_FOUND", metadata={"blob_id": str(blob_id)})
