"""How a setting is named and written in the environment."""

import json
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import SecretBytes, SecretStr
from pydantic.fields import FieldInfo

_SEQUENCES = (list, tuple, set, frozenset)
_SHOWN_CHARACTERS = 100


def variables(settings: Any, field: str) -> tuple[str, ...]:
    """Lists the environment variables that a field is read from, the one that wins first."""
    alias = settings.model_fields[field].validation_alias
    if isinstance(alias, str):
        return (alias,)
    shared = f"MINION_{field.upper()}"
    return (f"MINION_{settings.service.upper()}_{field.upper()}", shared) if settings.service else (shared,)


def parse(field: FieldInfo, text: str) -> object:
    """Turns a variable's text into what the field's type takes; scalars stay text, which pydantic converts.

    Raises ValueError when JSON is needed and the text is none.
    """
    for annotation in _alternatives(field.annotation):
        origin = get_origin(annotation) or annotation
        if origin is dict:
            return json.loads(text)
        if origin in _SEQUENCES:
            if text.lstrip().startswith("["):
                return json.loads(text)
            return [part.strip() for part in text.split(",") if part.strip()]
    return text


def render(value: object) -> str:
    """Writes a default as it would stand in the environment."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, _SEQUENCES):
        return ",".join(str(part) for part in value)
    return str(value)


def shown(text: str) -> str:
    """Quotes what a variable holds, for a message: cut where it is long, and with nothing up to its last `@`.

    A user and password may stand there, which nothing bounds where the address is wrong.
    """
    _, at, rest = text.rpartition("@")
    text = f"***@{rest}" if at else text
    return repr(text) if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]!r}…"


def holds_secret(field: FieldInfo) -> bool:
    """Says whether the field's value must never be shown."""
    return any(annotation in (SecretStr, SecretBytes) for annotation in _alternatives(field.annotation))


def choices(field: FieldInfo) -> tuple[str, ...]:
    """Lists the values that a Literal field takes; empty for other types."""
    for annotation in _alternatives(field.annotation):
        values = get_args(annotation)
        if values and all(isinstance(value, str) for value in values):
            return tuple(values)
    return ()


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Yields the members of a union, or the type itself."""
    members = [member for member in get_args(annotation) if member is not type(None)]
    union = type(None) in get_args(annotation) or len(members) != len(get_args(annotation))
    if union:
        yield from members
    else:
        yield annotation
