"""`read_blob`: more of a result that was too large for a message. READ_ONLY."""

from typing import Any
from uuid import UUID

from minion_gateway.runs.blobs import BlobPeer
from minion_gateway.tools.domain import Invocation, ToolFailedError

_DEFAULT_LENGTH = 16 * 1024
_MAXIMUM_LENGTH = 64 * 1024
_TEXTUAL = ("text/", "application/json", "application/xml", "application/yaml")
_CONTINUATION_BITS, _CONTINUATION = 0xC0, 0x80


class ReadBlob:
    """Reads `length` bytes of the text of `blob_id` from `offset` on; the blob is one of this session."""

    def __init__(self, blobs: BlobPeer) -> None:
        self._blobs = blobs

    async def __call__(self, invocation: Invocation) -> Any:
        """Returns `text`, `size_bytes`, and `next_offset` where more follows; characters stay whole."""
        blob_id = invocation.arguments.get("blob_id")
        if not isinstance(blob_id, str) or not _is_id(blob_id):
            raise ToolFailedError("Give `blob_id`: the id that an excerpt names.")
        offset = _number(invocation, "offset", 0, 0, 2**53)
        length = _number(invocation, "length", _DEFAULT_LENGTH, 4, _MAXIMUM_LENGTH)
        found = await self._blobs.read(invocation.session_id, blob_id, offset=offset, length=length)
        if not found.media_type.startswith(_TEXTUAL):
            raise ToolFailedError(f"The blob is {found.media_type}, which is no text.")
        whole = _whole_characters(found.data, is_last=offset + len(found.data) >= found.size_bytes)
        told = {"text": whole.decode(errors="replace"), "size_bytes": found.size_bytes}
        end = offset + len(whole)
        return {**told, "next_offset": end} if end < found.size_bytes else told


def _number(invocation: Invocation, name: str, default: int, least: int, most: int) -> int:
    value = invocation.arguments.get(name, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ToolFailedError(f"The `{name}` must be a whole number from {least} to {most}.")
    return value


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return len(text) == 36


def _whole_characters(data: bytes, *, is_last: bool) -> bytes:
    """Leaves a character that is cut at the end (UTF-8, RFC 3629) to the next range."""
    if is_last:
        return data
    start = len(data)
    while start > max(0, len(data) - 4):
        start -= 1
        if data[start] & _CONTINUATION_BITS != _CONTINUATION:
            break
    try:
        data[start:].decode()
    except UnicodeDecodeError:
        return data[:start] if start else data
    return data
