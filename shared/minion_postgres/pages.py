"""Page tokens: an opaque keyset cursor, bound to the filters that it was made under.

A token holds the sort key of the last row of a page, which the caller has just been shown, so it is not signed; but
everything in it is checked again, because it comes back from outside.
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import orjson
from minion_errors import InvalidArgument, Violation

Key = str | int | float | bool | UUID | datetime

_VERSION: Final = 1
_MAXIMUM_CHARACTERS: Final = 2048
_BIGINT: Final = 2**63
_SHORT: Final = 12  # bytes of the filters' digest: it catches mistakes, it keeps nobody out


def encode(cursor: Sequence[Key], filters: Mapping[str, object]) -> str:
    """Makes the token of the page that follows the row with the sort key `cursor`.

    `filters` is whatever else decides the list (filters, order, parent); values that orjson can write.
    """
    body = orjson.dumps([_VERSION, _digest(filters), *(_to_json(value) for value in cursor)])
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def decode(
    token: str,
    filters: Mapping[str, object],
    types: Sequence[type],
    *,
    reason: str = "PAGE_TOKEN_INVALID",
    field: str = "page_token",
) -> tuple[Key, ...]:
    """Reads a token back as values of the given types (str, int, float, bool, UUID, datetime).

    Raises InvalidArgument with `reason`, naming `field`, when the token is malformed or belongs to other filters.
    """
    try:
        if len(token) > _MAXIMUM_CHARACTERS:
            raise ValueError("too long")
        body = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        version, digest, *values = orjson.loads(body)
        if version != _VERSION or digest != _digest(filters) or len(values) != len(types):
            raise ValueError("of another list")
        return tuple(_from_json(value, kind) for value, kind in zip(values, types, strict=True))
    except (ValueError, TypeError, OverflowError) as error:
        raise refused(reason, field) from error


def refused(reason: str, field: str) -> InvalidArgument:
    """Builds the error for a token that can't be taken."""
    return InvalidArgument(
        f"The {field.replace('_', ' ')} is malformed, or was made for another list.",
        reason=reason,
        violations=[Violation(field, "must be one that this list gave out, with the same filters")],
    )


def _digest(filters: Mapping[str, object]) -> str:
    canonical = orjson.dumps(dict(filters), option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return base64.b64encode(hashlib.sha256(canonical).digest()[:_SHORT]).decode()


def _to_json(value: Key) -> object:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise TypeError("a cursor's time needs a time zone")
        return value.astimezone(UTC).isoformat()
    return value


def _from_json(value: object, kind: type) -> Key:
    """Checks one value strictly: what Postgres would refuse must not get as far as Postgres."""
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and not isinstance(value, bool) and -_BIGINT <= value < _BIGINT:
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if isinstance(value, str) and "\x00" not in value:
        if kind is str:
            return value
        if kind is UUID:
            return UUID(value)
        if kind is datetime:
            time = datetime.fromisoformat(value)
            if time.tzinfo is None:
                raise ValueError("a time with no zone")
            return time.astimezone(UTC)
    raise ValueError(f"not a {kind.__name__}")
