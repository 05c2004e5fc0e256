"""JSON Schemas that answers have to match: written by callers, so they are bounded and fetch nothing."""

from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema_rs
import orjson
from minion_errors import Violation

# What a regular expression of a schema may take once compiled; with limits the engine is one that never backtracks.
_PATTERN_BYTES = 1024 * 1024
# Followed again and again, references make a small schema take for ever.
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def schema_faults(schema: Mapping[str, Any], field: str) -> list[Violation]:
    """Returns why a schema can't be one for answers; nothing, when it can."""
    if any(word in node for node in _nodes(schema) for word in _REFERENCES):
        return [Violation(field, "must not refer to other schemas or to parts of itself")]
    try:
        _compiled(schema)
    except (jsonschema_rs.ValidationError, ValueError) as error:
        return [Violation(field, f"is no JSON Schema: {str(getattr(error, 'message', error))[:300]}")]
    return []


def matches(text: str, schema: Mapping[str, Any]) -> bool:
    """Whether a text is JSON of this schema."""
    try:
        value = orjson.loads(text)
    except ValueError:
        return False
    return bool(_compiled(schema).is_valid(value))


def _compiled(schema: Mapping[str, Any]) -> Any:
    return jsonschema_rs.Draft202012Validator(
        dict(schema),
        retriever=_refuse,
        pattern_options=jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES),
    )


def _refuse(uri: str) -> Any:
    raise ValueError(f"a schema of an answer may not refer to {uri[:200]}")


def _nodes(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    waiting: list[Any] = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
