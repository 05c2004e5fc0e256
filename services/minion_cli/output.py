"""How results are written: tables for people, JSON and YAML for programs."""

import enum
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import typer
import yaml
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

_NANOS = 1_000_000_000
# Wide enough for any table when nobody looks at it: a program that reads a pipe wants whole values.
_PIPE_WIDTH = 1_000


class Format(enum.StrEnum):
    """The forms that a result can be written in."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


FormatOption = Annotated[Format, typer.Option("--output", "-o", help="Form of the output.")]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="The most rows to show.")]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table; a `wide` one takes the room that is left and is cut there."""

    title: str
    value: Callable[[Any], str]
    wide: bool = False
    right: bool = False


class EnumType(Protocol):
    """What the generated enums offer."""

    def Name(self, number: Any) -> str: ...  # noqa: N802 - protobuf's name

    def items(self) -> Sequence[tuple[str, Any]]: ...


def console(*, error: bool = False) -> Console:
    """Makes a console for standard output (or error); colours only where a person looks at it."""
    stream = sys.stderr if error else sys.stdout
    return Console(
        file=stream, highlight=False, soft_wrap=False, width=None if stream.isatty() else _PIPE_WIDTH, markup=False
    )


def show_list(messages: Sequence[Message], columns: Sequence[Column], form: Format) -> None:
    """Writes messages as rows, or as a JSON or YAML list in protobuf's JSON mapping."""
    if form is not Format.TABLE:
        dump([as_dict(message) for message in messages], form)
        return
    if not messages:
        print("(none)", file=sys.stderr)
        return
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(
            column.title,
            no_wrap=True,
            overflow="ellipsis" if column.wide else "fold",
            justify="right" if column.right else "left",
            ratio=None,
            min_width=None if column.wide else max(len(one_line(column.value(message))) for message in messages),
        )
    for message in messages:
        table.add_row(*(Text(one_line(column.value(message))) for column in columns))
    console().print(table)


def show_one(message: Message, form: Format) -> None:
    """Writes one message: a field a line, or JSON or YAML."""
    content = as_dict(message)
    if form is not Format.TABLE:
        dump(content, form)
        return
    rows = list(_flat(content))
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        first, *rest = value.splitlines() or [""]
        print(f"{name:<{width}}  {first}")
        for line in rest:
            print(f"{'':<{width}}  {line}")


def as_dict(message: Message) -> dict[str, Any]:
    """Gives a message as its JSON mapping with the contract's own field names."""
    return dict(MessageToDict(message, preserving_proto_field_name=True))


def as_plain(message: Message) -> dict[str, Any]:
    """Gives a message as `as_dict` does, for people to edit: whole numbers of a Struct without a fraction."""
    return dict(_whole(as_dict(message)))


def enum_text(enum_type: EnumType, number: int) -> str:
    """Writes an enum's value without its prefix, in lower case: AGENT_STATUS_ACTIVE becomes `active`."""
    name = enum_type.Name(number)
    return name.removeprefix(_prefix(enum_type)).lower()


def enum_value(enum_type: EnumType, text: str | None, option: str) -> Any:
    """Reads what `enum_text` writes; None means unspecified, anything unknown is a usage error with the choices."""
    if text is None:
        return 0
    prefix = _prefix(enum_type)
    choices = {name.removeprefix(prefix).lower(): number for name, number in enum_type.items() if number}
    try:
        return choices[text.lower().replace("-", "_")]
    except KeyError:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(choices)}.", param_hint=option) from None


def time_text(time: Timestamp) -> str:
    """Writes a time in UTC to the second; empty when unset."""
    return time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S") if time.seconds or time.nanos else ""


def duration_text(duration: Duration) -> str:
    """Writes a duration in milliseconds below a second, in seconds above."""
    seconds = duration.seconds + duration.nanos / _NANOS
    return f"{seconds * 1_000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def cost_text(holder: Any) -> str:
    """Writes the cost of a message that has one, in US dollars; a price that isn't known is said so."""
    if not holder.HasField("cost_nanos"):
        return "unknown"
    return dollars(holder.cost_nanos)


def dollars(nanos: int) -> str:
    """Writes nano-units of US dollars with six decimals, and more where that would hide them."""
    return f"${nanos / _NANOS:.6f}" if nanos % 1_000 == 0 or nanos >= 1_000_000 else f"${nanos / _NANOS:.9f}"


def as_json(message: Message) -> str:
    """Writes a Struct or a Value as compact JSON; whole numbers without a fraction."""
    return json.dumps(plain(message), ensure_ascii=False)


def plain(message: Message) -> Any:
    """Gives a Struct or a Value as Python's own types; whole numbers as ints."""
    return _whole(MessageToDict(message))


def one_line(text: str) -> str:
    """Folds white space, so that a text stays in its row."""
    return " ".join(text.split())


def _whole(value: Any) -> Any:
    # A Struct holds every number as a double: 17 comes back as 17.0.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {name: _whole(item) for name, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def _prefix(enum_type: EnumType) -> str:
    return enum_type.Name(0).removesuffix("UNSPECIFIED")


def dump(content: object, form: Format) -> None:
    """Writes JSON values as JSON or YAML."""
    if form is Format.JSON:
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        print(yaml.safe_dump(content, sort_keys=False, allow_unicode=True).rstrip())


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            yield prefix + name, value
        else:
            yield prefix + name, json.dumps(value, ensure_ascii=False)
