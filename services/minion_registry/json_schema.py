"""Tools' JSON Schemas (draft 2020-12): compiled to see that they are ones, and bounded so that they stay cheap."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import jsonschema_rs
from minion_errors import InvalidArgument, Violation

from minion_registry import schema_costs
from minion_registry.schema_costs import Automaton, CircularError, GrowthError

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_MOST_FAULTS = 20
# Values of a schema of which all faults are listed: the library makes every one, eight for a value, each about 15 µs,
# before it gives the first. 32,000 took seconds.
_MOST_LISTED = 3_000
# A compiled pattern's size; one that repeats repetitions grows without bound otherwise. Matching is linear in any case.
PATTERN_BYTES = 256 * 1024
_MOST_PATTERNS = 50
# Subschemas visited when one value is checked. References multiply: 25 definitions, each naming the next twice, are
# 33 million visits, and with `unevaluatedProperties` take a minute to compile alone.
_MOST_VISITS = 10_000
_DEEPEST = 100
# Subschemas that look at one place of a value. A schema that refers to itself twice doubles them with every level.
_MOST_AT_ONCE = 1_000
_MOST_STATES = 5_000
# Subschemas looked at to know all that, about 1 µs each. Where it depends on the way into a value which of them look at
# a place, 11 KB of schema make 10 million.
_MOST_WORK = 100_000
# As deep as a value may be.
_LEVELS = 33

_META_SCHEMA = jsonschema_rs.Draft202012Validator({"$ref": _DRAFT})


def check(schema: Mapping[str, Any], field: str, *, of_object: bool = True) -> None:
    """Raises InvalidArgument (TOOL_SCHEMA_INVALID), which says where, unless `schema` can be checked by.

    It must be a JSON Schema (of an object, unless `of_object` is false), refer to nothing outside of itself, have few
    patterns and only ones of the linear-time engine (no look-around, no back-references), and not grow beyond measure
    when references are followed.
    """
    faults = [Violation(path_of(field, error.instance_path), error.message[:300]) for error in _errors(schema)]
    if schema.get("$schema", _DRAFT) not in (_DRAFT, f"{_DRAFT}#"):
        faults.append(Violation(f"{field}.$schema", f"must be {_DRAFT} where it is given"))
    if of_object and schema.get("type") != "object":
        faults.append(Violation(f"{field}.type", 'must be "object": what it checks is an object'))
    # Each look supposes what the one before has found in order.
    faults = faults or _measure(schema, field) or _compile(schema, field)
    if faults:
        listed = "; ".join(f"{fault.field} {fault.description}" for fault in faults[:3])
        raise InvalidArgument(f"The schema can't be used: {listed}.", reason="TOOL_SCHEMA_INVALID", violations=faults)


def compiled(schema: Mapping[str, Any], **options: Any) -> jsonschema_rs.Draft202012Validator:
    """Compiles a schema, so that nothing is fetched and patterns are of the linear-time engine."""
    return jsonschema_rs.Draft202012Validator(
        dict(schema),
        retriever=_refuse,
        pattern_options=jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES, dfa_size_limit=PATTERN_BYTES),
        **options,
    )


def path_of(field: str, path: list[str | int]) -> str:
    """Writes where a fault is, below a field of a request."""
    return field + "".join(f"[{part}]" if isinstance(part, int) else f".{part[:64]}" for part in path[:32])


def _errors(schema: Mapping[str, Any]) -> Iterator[jsonschema_rs.ValidationError]:
    """Yields what makes it no JSON Schema; of a large one the first fault alone."""
    if _is_small(schema):
        yield from islice(_META_SCHEMA.iter_errors(dict(schema)), _MOST_FAULTS)
        return
    try:
        _META_SCHEMA.validate(dict(schema))
    except jsonschema_rs.ValidationError as error:
        yield error


def _is_small(schema: Mapping[str, Any]) -> bool:
    left = _MOST_LISTED
    waiting: list[Any] = [schema]
    while waiting and left >= 0:
        value = waiting.pop()
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
        left -= len(inner)
        waiting.extend(inner)
    return left >= 0


def _measure(schema: Mapping[str, Any], field: str) -> list[Violation]:
    patterns = 0
    names: set[str] = set()
    for node in schema_costs.walk(schema):
        named = node.get("patternProperties")
        patterns += ("pattern" in node) + (len(named) if isinstance(named, dict) else 0)
        for name in {str(node[keyword]) for keyword in schema_costs.ANCHORS if keyword in node}:
            if name in names:
                return [Violation(field, f"names two parts of itself {name[:64]!r}")]
            names.add(name)
        if "$id" in node and node is not schema:
            return [Violation(field, "may have an $id at its root alone")]
        if any(not str(node.get(keyword, "#")).startswith("#") for keyword in schema_costs.REFERENCES):
            return [Violation(field, "may refer to parts of itself alone: #, #/… or #anchor")]
    if patterns > _MOST_PATTERNS:
        return [Violation(field, f"may have {_MOST_PATTERNS} patterns, has {patterns}")]
    if _visits(schema) > _MOST_VISITS:
        return [Violation(field, "grows beyond measure when its references are followed")]
    try:
        if _grows(schema):
            return [Violation(field, f"checks one place of a value in more than {_MOST_AT_ONCE} ways")]
    except GrowthError:
        return [Violation(field, "grows beyond measure when its references are followed")]
    except CircularError:
        return [Violation(field, "refers to itself, or on and on, without going into the value")]
    return []


def _compile(schema: Mapping[str, Any], field: str) -> list[Violation]:
    try:
        compiled(schema)
    except jsonschema_rs.ValidationError as error:
        return [Violation(path_of(field, error.instance_path), error.message[:300])]
    return []


def _refuse(uri: str) -> Any:
    # The library fetches what a reference names; what callers wrote must not make us call anybody.
    raise ValueError(f"{uri[:100]} is remote")


def _visits(schema: Mapping[str, Any]) -> int:
    """Estimates how many subschemas one check visits when references are followed; stops counting above the limit.

    What leads back to itself is counted once: from there on the checked value's own depth bounds it.
    `unevaluatedProperties` and `unevaluatedItems` visit what stands beside them a second time.
    """
    anchors = schema_costs.anchors(schema)
    known: dict[int, int] = {}

    def visit(node: Mapping[str, Any], depth: int) -> int:
        if id(node) in known:
            return known[id(node)]
        if depth > _DEEPEST:
            return _MOST_VISITS + 1
        known[id(node)] = 1
        visits = sum(visit(part, depth + 1) for part in schema_costs.parts(node, definitions=False))
        for keyword in schema_costs.REFERENCES:
            target = schema_costs.target(schema, anchors, str(node[keyword])) if keyword in node else None
            if isinstance(target, dict):
                visits += visit(target, depth + 1)
        if "unevaluatedProperties" in node or "unevaluatedItems" in node:
            visits *= 2
        known[id(node)] = min(visits + 1, _MOST_VISITS + 1)
        return known[id(node)]

    return visit(schema, 0)


def _grows(schema: Mapping[str, Any]) -> bool:
    """Tells whether some place of a value is looked at by too many subschemas. Raises CircularError and GrowthError."""
    automaton = Automaton(schema, most_work=_MOST_WORK)
    level, seen = [automaton.root], {id(automaton.root)}
    for _ in range(_LEVELS):
        if len(seen) > _MOST_STATES or any(state.weight > _MOST_AT_ONCE for state in level):
            return True
        level = list(_unseen((found for state in level for found in automaton.next(state)), seen))
    return False


def _unseen(states: Iterator[schema_costs.State], seen: set[int]) -> Iterator[schema_costs.State]:
    for state in states:
        if len(seen) <= _MOST_STATES and id(state) not in seen:
            seen.add(id(state))
            yield state
