"""Between the contract's types and Python's: times, spans, ids, structures, masks, digests."""

import asyncio
import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import orjson
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from minion_errors import Violations

Given = TypeVar("Given")
Converted = TypeVar("Converted")

MAXIMUM_STRUCT_DEPTH = 32
# Whole numbers beyond it lose digits as a double, which is what a Struct holds.
_EXACT_INTEGER = 2**53
# What JSON takes on the wire at most: of lists of numbers of one digit, eleven bytes for two.
_WIRE_BYTES_PER_JSON_BYTE = 6
# Above it a message is converted off the event loop: at its worst 32 KiB take 20 ms.
_LARGE_BYTES = 32 * 1024
# Characters of a path that an error shows.
_SHOWN = 200
_MOST_PATHS = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_timestamp(moment: datetime) -> Timestamp:
    """Converts an aware datetime; microseconds are kept."""
    timestamp = Timestamp()
    set_timestamp(timestamp, moment)
    return timestamp


def set_microseconds(timestamp: Timestamp, microseconds: int) -> None:
    """Sets a timestamp where it stands, such as in a list's item, to so many microseconds after the epoch."""
    timestamp.seconds, rest = divmod(microseconds, 1_000_000)
    timestamp.nanos = rest * 1_000


def set_timestamp(timestamp: Timestamp, moment: datetime) -> None:
    """Sets a timestamp where it stands to an aware datetime; microseconds are kept."""
    since = moment - _EPOCH
    timestamp.seconds = since.days * 86_400 + since.seconds
    timestamp.nanos = since.microseconds * 1_000


def to_optional_timestamp(moment: datetime | None) -> Timestamp | None:
    """Converts a datetime where there is one; None leaves the field unset when given to a message's constructor."""
    return None if moment is None else to_timestamp(moment)


def from_timestamp(timestamp: Timestamp, field: str, violations: Violations) -> datetime:
    """Converts to an aware UTC datetime; nanoseconds are cut. A moment outside of years 1 to 9999 is a fault."""
    try:
        return _EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1_000)
    except OverflowError:
        violations.add(field, "must lie in the years 1 to 9999")
        return _EPOCH


def to_duration(span: timedelta) -> Duration:
    """Converts a span of time."""
    duration = Duration()
    duration.FromTimedelta(span)
    return duration


def from_duration(duration: Duration, field: str, violations: Violations) -> timedelta:
    """Converts a span of time; nanoseconds are cut. One that Python can't hold is a fault."""
    try:
        # Towards zero: a timedelta would round what is a fraction.
        return timedelta(seconds=duration.seconds, microseconds=int(duration.nanos / 1_000))
    except OverflowError:
        violations.add(field, "must lie within ±10,000 years")
        return timedelta()


async def off_loop(convert: Callable[[Given], Converted], given: Given, size: int) -> Converted:
    """Converts what has `size` bytes by `convert`: in a thread where it is large, so that others are served meanwhile.

    What counts are bytes of JSON values, on the wire or as JSON; texts cost next to nothing.
    """
    return convert(given) if size <= _LARGE_BYTES else await asyncio.to_thread(convert, given)


def json_bytes(values: Iterable[Any]) -> int:
    """Measures JSON values, for `off_loop`."""
    return sum(len(orjson.dumps(value)) for value in values)


def to_struct(values: Mapping[str, Any]) -> Struct:
    """Converts a JSON object."""
    struct = Struct()
    set_struct(struct, values)
    return struct


def set_struct(struct: Struct, values: Mapping[str, Any]) -> None:
    """Sets a structure where it stands to a JSON object."""
    fields = struct.fields
    for name, value in values.items():
        _set(fields[name], value)


def from_struct(struct: Struct, field: str, violations: Violations) -> dict[str, Any]:
    """Converts to a JSON object; whole numbers become ints.

    One nested deeper than 32 levels, with a number that JSON has no name for (NaN, infinity), or with U+0000 in a text
    or name (Postgres refuses it) is a fault.
    """
    return _plain_fields(struct, field, violations, 1)


def from_bounded_struct(struct: Struct, field: str, violations: Violations, *, maximum: int) -> dict[str, Any]:
    """Converts to a JSON object of at most `maximum` bytes as JSON; one that is far larger is not even read."""
    _bound(struct, field, violations, maximum)
    return _sized(from_struct(struct, field, violations), field, violations, maximum)


def from_value(value: Value, field: str, violations: Violations) -> Any:
    """Converts to a JSON value under the rules of `from_struct`; unset is None."""
    return _plain(value, field, violations, 1)


def from_bounded_value(value: Value, field: str, violations: Violations, *, maximum: int) -> Any:
    """Converts to a JSON value of at most `maximum` bytes as JSON; one that is far larger is not even read."""
    _bound(value, field, violations, maximum)
    return _sized(from_value(value, field, violations), field, violations, maximum)


def to_value(value: Any) -> Value:
    """Converts a JSON value."""
    converted = Value()
    _set(converted, value)
    return converted


def optional_text(value: UUID | None) -> str:
    """Writes an id where there is one, else the empty text that stands for none."""
    return "" if value is None else str(value)


def mask_paths(mask: FieldMask, allowed: Collection[str], field: str, violations: Violations) -> frozenset[str]:
    """Reads an update mask's paths; an empty mask means all that is allowed, an unknown path is a fault."""
    if len(mask.paths) > _MOST_PATHS:
        violations.stop(field, f"must have at most {_MOST_PATHS} paths, has {len(mask.paths)}")
    paths = frozenset(mask.paths)
    for path in sorted(paths - frozenset(allowed)):
        violations.add(field, f"has the unknown or immutable path {path[:100]!r}")
    return paths or frozenset(allowed)


def request_digest(message: Message) -> bytes:
    """Gives the SHA-256 by which a replay is told from another request: of all fields but `request_id`.

    It covers the message's type, so that one request_id can't serve two methods.
    """
    copied = type(message)()
    copied.CopyFrom(message)
    copied.ClearField("request_id")
    digest = hashlib.sha256(message.DESCRIPTOR.full_name.encode())
    digest.update(b"\0")
    digest.update(copied.SerializeToString(deterministic=True))
    return digest.digest()


def _bound(given: Struct | Value, field: str, violations: Violations, maximum: int) -> None:
    if given.ByteSize() > maximum * _WIRE_BYTES_PER_JSON_BYTE:
        violations.stop(field, f"must have at most {maximum} bytes as JSON")


def _sized(plain: Converted, field: str, violations: Violations, maximum: int) -> Converted:
    size = len(orjson.dumps(plain))
    if size > maximum:
        violations.add(field, f"must have at most {maximum} bytes as JSON, has {size}")
    return plain


def _set(target: Value, value: Any) -> None:
    match value:
        case None:
            target.null_value = 0  # type: ignore[assignment]  # NULL_VALUE, the one value of its enum
        case bool():
            target.bool_value = value
        case int() | float():
            target.number_value = float(value)
        case str():
            target.string_value = value
        case Mapping():
            # Filled where it stands: a copy at each level would make deep values cost their depth again.
            target.struct_value.SetInParent()
            set_struct(target.struct_value, value)
        case list() | tuple():
            target.list_value.SetInParent()
            items = target.list_value.values
            for item in value:
                _set(items.add(), item)
        case _:
            raise TypeError(f"a {type(value).__name__} is no JSON value")


def _plain(value: Value, field: str, violations: Violations, depth: int) -> Any:
    if depth > MAXIMUM_STRUCT_DEPTH:
        violations.add(field, f"is nested deeper than {MAXIMUM_STRUCT_DEPTH} levels")
        return None
    match value.WhichOneof("kind"):
        case "number_value":
            return _number(value.number_value, field, violations)
        case "string_value":
            return _text(value.string_value, field, violations)
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return _plain_fields(value.struct_value, field, violations, depth + 1)
        case "list_value":
            items = enumerate(value.list_value.values)
            return [_plain(item, _below(field, f"[{index}]"), violations, depth + 1) for index, item in items]
        case _:
            return None


def _below(field: str, step: str) -> str:
    # Bounded: a name of a megabyte above a hundred thousand values would be copied for each of them.
    return field if len(field) > _SHOWN else field + step


def _plain_fields(struct: Struct, field: str, violations: Violations, depth: int) -> dict[str, Any]:
    return {
        _text(name, field, violations): _plain(value, _below(field, f".{name[:_SHOWN]}"), violations, depth)
        for name, value in struct.fields.items()
    }


def _text(text: str, field: str, violations: Violations) -> str:
    if "\x00" in text:
        violations.add(field, "must not hold the character U+0000")
    return text


def _number(number: float, field: str, violations: Violations) -> int | float:
    if number - number != 0:  # NaN or infinite
        violations.add(field, "must be a finite number")
        return 0
    whole = int(number)
    return whole if whole == number and abs(whole) <= _EXACT_INTEGER else number
