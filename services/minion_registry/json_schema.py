"""Tools' JSON Schemas (draft 2020-12): compiled to see that they are ones, and bounded so that they stay cheap."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any
from urllib.parse import unquote

import jsonschema_rs
from minion_errors import InvalidArgument, Violation

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_MOST_FAULTS = 20
# A compiled pattern's size; one that repeats repetitions grows without bound otherwise. Matching is linear in any case.
_PATTERN_BYTES = 256 * 1024
_MOST_PATTERNS = 50
# Subschemas visited when one value is checked. References multiply: 25 definitions, each naming the next twice, are
# 33 million visits, and with `unevaluatedProperties` take a minute to compile alone.
_MOST_VISITS = 10_000
_DEEPEST = 100

# Keywords that hold data, and those that hold schemas by name; whatever else holds a schema or a list of them.
_DATA = frozenset({"const", "default", "enum", "examples"})
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
_DEFINITIONS = frozenset({"$defs", "definitions"})
_REFERENCES = ("$ref", "$dynamicRef")
_ANCHORS = ("$anchor", "$dynamicAnchor")

_META_SCHEMA = jsonschema_rs.Draft202012Validator({"$ref": _DRAFT})


def check(schema: Mapping[str, Any], field: str) -> None:
    """Raises InvalidArgument (TOOL_SCHEMA_INVALID), which says where, unless `schema` can check a tool's arguments.

    It must be a JSON Schema of an object, refer to nothing outside of itself, have few patterns and only ones of the
    linear-time engine (no look-around, no back-references), and not grow beyond measure when references are followed.
    """
    errors = islice(_META_SCHEMA.iter_errors(dict(schema)), _MOST_FAULTS)
    faults = [Violation(_path(field, error.instance_path), error.message[:300]) for error in errors]
    if schema.get("$schema", _DRAFT) not in (_DRAFT, f"{_DRAFT}#"):
        faults.append(Violation(f"{field}.$schema", f"must be {_DRAFT} where it is given"))
    if schema.get("type") != "object":
        faults.append(Violation(f"{field}.type", 'must be "object": arguments are an object'))
    # Each look supposes what the one before has found in order.
    faults = faults or _measure(schema, field) or _compile(schema, field)
    if faults:
        listed = "; ".join(f"{fault.field} {fault.description}" for fault in faults[:3])
        raise InvalidArgument(f"The schema can't be used: {listed}.", reason="TOOL_SCHEMA_INVALID", violations=faults)


def _measure(schema: Mapping[str, Any], field: str) -> list[Violation]:
    patterns = 0
    anchors: dict[str, Any] = {}
    for node in _walk(schema):
        named = node.get("patternProperties")
        patterns += ("pattern" in node) + (len(named) if isinstance(named, dict) else 0)
        anchors.update({f"#{node[keyword]}": node for keyword in _ANCHORS if keyword in node})
        if "$id" in node and node is not schema:
            return [Violation(field, "may have an $id at its root alone")]
        if any(not str(node.get(keyword, "#")).startswith("#") for keyword in _REFERENCES):
            return [Violation(field, "may refer to parts of itself alone: #, #/… or #anchor")]
    if patterns > _MOST_PATTERNS:
        return [Violation(field, f"may have {_MOST_PATTERNS} patterns, has {patterns}")]
    if _visits(schema, anchors) > _MOST_VISITS:
        return [Violation(field, "grows beyond measure when its references are followed")]
    return []


def _compile(schema: Mapping[str, Any], field: str) -> list[Violation]:
    try:
        jsonschema_rs.Draft202012Validator(
            dict(schema),
            retriever=_refuse,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES),
        )
    except jsonschema_rs.ValidationError as error:
        return [Violation(_path(field, error.instance_path), error.message[:300])]
    return []


def _refuse(uri: str) -> Any:
    # The library fetches what a reference names; what callers wrote must not make us call anybody.
    raise ValueError(f"{uri[:100]} is remote")


def _path(field: str, path: list[str | int]) -> str:
    return field + "".join(f"[{part}]" if isinstance(part, int) else f".{part[:64]}" for part in path[:32])


def _parts(node: Mapping[str, Any], *, definitions: bool) -> Iterator[Mapping[str, Any]]:
    """Yields the subschemas that stand in a schema; true and false are none."""
    for keyword, value in node.items():
        if keyword in _DATA or (keyword in _DEFINITIONS and not definitions):
            continue
        if isinstance(value, dict):
            candidates = list(value.values()) if keyword in _NAMED else [value]
        else:
            candidates = value if isinstance(value, list) else []
        yield from (part for part in candidates if isinstance(part, dict))


def _walk(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields every subschema once, the whole first."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(_parts(node, definitions=True))


def _visits(schema: Mapping[str, Any], anchors: Mapping[str, Any]) -> int:
    """Estimates how many subschemas one check visits when references are followed; stops counting above the limit.

    What leads back to itself is counted once: from there on the checked value's own depth bounds it.
    `unevaluatedProperties` and `unevaluatedItems` visit what stands beside them a second time.
    """
    known: dict[int, int] = {}

    def visit(node: Mapping[str, Any], depth: int) -> int:
        if id(node) in known:
            return known[id(node)]
        if depth > _DEEPEST:
            return _MOST_VISITS + 1
        known[id(node)] = 1
        visits = sum(visit(part, depth + 1) for part in _parts(node, definitions=False))
        for keyword in _REFERENCES:
            target = _target(schema, anchors, str(node[keyword])) if keyword in node else None
            if isinstance(target, dict):
                visits += visit(target, depth + 1)
        if "unevaluatedProperties" in node or "unevaluatedItems" in node:
            visits *= 2
        known[id(node)] = min(visits + 1, _MOST_VISITS + 1)
        return known[id(node)]

    return visit(schema, 0)


def _target(schema: Any, anchors: Mapping[str, Any], reference: str) -> Any:
    """Follows a reference (RFC 6901 in a URI fragment); None where it leads nowhere, which compiling then says."""
    if reference in anchors:
        return anchors[reference]
    node = schema
    for token in unquote(reference).split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and key in node:
            node = node[key]
        elif isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
    return node
