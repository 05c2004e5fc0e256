"""Checks that the requests of several nouns share; each records its faults and returns a value to go on with."""

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres.idempotency import Key

_DEFAULT_PAGE = 50
_LARGEST_PAGE = 500
_MOST_LABELS = 32
_MOST_BYTES = 16 * 1024
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


def key(violations: Violations, request: Message) -> Key | None:
    """Reads what makes a request repeatable; None when it has no `request_id`."""
    request_id = violations.optional_identifier("request_id", request.request_id)  # type: ignore[attr-defined]
    if request_id is None:
        return None
    method = request.DESCRIPTOR.name.removesuffix("Request")
    return Key(method=method, request_id=request_id, digest=wire.request_digest(request))


def page_size(violations: Violations, size: int) -> int:
    """Reads a page size: 0 means 50, above 500 means 500, negative is a fault."""
    if size < 0:
        violations.add("page_size", f"must not be negative, is {size}")
    return min(size or _DEFAULT_PAGE, _LARGEST_PAGE)


def name(violations: Violations, field: str, value: str) -> str:
    """Checks the name of a tenant or an agent."""
    if not _NAME.fullmatch(value):
        violations.add(field, "must be 1 to 63 characters of a-z, 0-9 and '-', starting with a letter")
    return value


def either(violations: Violations, fields: Mapping[str, str]) -> None:
    """Records a fault unless exactly one of the fields is given."""
    if sum(bool(value) for value in fields.values()) != 1:
        for field in fields:
            others = " or ".join(other for other in fields if other != field)
            violations.add(field, f"must be given, or {others}, and not both")


def labels(
    violations: Violations, field: str, values: Mapping[str, str], *, maximum: int = _MOST_LABELS
) -> dict[str, str]:
    """Checks labels: their number, and the length of keys and values."""
    violations.count(field, values, maximum=maximum)
    for label, value in values.items():
        violations.length(f"{field}[{label[:63]!r}]", label, minimum=1, maximum=63)
        violations.length(f"{field}[{label[:63]!r}]", value, maximum=63)
    return dict(values)


def json_object(violations: Violations, field: str, value: Struct, *, maximum: int = _MOST_BYTES) -> dict[str, Any]:
    """Reads a caller's own JSON object and checks its size in bytes as JSON."""
    return wire.from_bounded_struct(value, field, violations, maximum=maximum)


def identifier_or_new(violations: Violations, field: str, value: str, new: UUID) -> UUID:
    """Reads the id that the caller proposes, or takes `new`."""
    return violations.optional_identifier(field, value) or new
