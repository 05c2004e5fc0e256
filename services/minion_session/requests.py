"""Checks that the requests of several nouns share; each records its faults and returns a value to go on with."""

from typing import Any

import orjson
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key

_MOST_BYTES = 16 * 1024
_NULL_BYTES = 2


def key(violations: Violations, request: Any) -> Key | None:
    """Reads what makes a request repeatable; None when it has no `request_id`."""
    request_id = violations.optional_identifier("request_id", request.request_id)
    if request_id is None:
        return None
    method = str(request.DESCRIPTOR.name).removesuffix("Request")
    return Key(method=method, request_id=request_id, digest=wire.request_digest(request))


def page_size(violations: Violations, size: int, *, default: int, largest: int) -> int:
    """Reads a page size: 0 is the default, one that is too large becomes the largest, negative is a fault."""
    if size < 0:
        violations.add("page_size", f"must not be negative, is {size}")
    return min(size or default, largest)


def json_object(violations: Violations, field: str, value: Struct) -> dict[str, Any]:
    """Reads a caller's own data and checks its size: 16 KiB as JSON."""
    if not value.fields:
        return {}
    return wire.from_bounded_struct(value, field, violations, maximum=_MOST_BYTES)


def reply_bytes(given: Message, *values: Any) -> int:
    """Measures what given data takes in a reply, at most; `values` are the JSON values in it.

    A value that is nothing may have been left unset, two bytes in a list. It is written as null, which takes four.
    """
    return given.ByteSize() + _NULL_BYTES * sum(orjson.dumps(value).count(b"null") for value in values if value)
