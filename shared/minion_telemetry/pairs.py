"""Lists of `name=value`, as OpenTelemetry writes headers and attributes of resources in one variable."""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

# What HTTP/2 takes as gRPC's metadata: binary values (`-bin`) and gRPC's own names are no person's to set.
_HEADER_NAME: Final = re.compile(r"(?!grpc-)[0-9a-z_.-]+(?<!-bin)")
_HEADER_VALUE: Final = re.compile(r"[ -~]*")


def headers(text: str) -> dict[str, str]:
    """Reads headers. Raises ValueError, which names a header by its place alone: any part of it may be a secret."""
    found: dict[str, str] = {}
    for place, name, value in _pairs(text):
        if not _HEADER_NAME.fullmatch(name.lower()):
            raise ValueError(f"must be name=value,name=value; the name at place {place} is no header's")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"must hold printable ASCII alone; the value at place {place} doesn't")
        found[name.lower()] = value
    return found


def attributes(text: str) -> dict[str, str]:
    """Reads attributes of a resource. Raises ValueError."""
    return {name: value for _, name, value in _pairs(text)}


def _pairs(text: str) -> Iterator[tuple[int, str, str]]:
    for place, part in enumerate(text.split(","), 1):
        if not part.strip():
            continue
        name, separator, value = part.partition("=")
        name = unquote(name).strip()
        if not separator or not name:
            raise ValueError(f"must be name=value,name=value; what stands at place {place} isn't")
        yield place, name, unquote(value.strip())
