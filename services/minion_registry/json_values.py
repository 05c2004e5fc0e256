"""Checks values by tools' JSON Schemas, in bounded time: what a check would take is counted before it is made."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import jsonschema_rs
import orjson
from minion_errors import InvalidArgument, Violation

from minion_registry import json_schema
from minion_registry.schema_costs import Automaton

_MOST_FAULTS: Final = 100
_MOST_NANOS: Final = 60_000_000
# The library makes all of its faults, each about 20 µs and a copy of the value that it is about.
_MOST_RULES: Final = 3_000
_MOST_COPIED: Final = 64_000_000
_REMEMBERED: Final = 200
# Where the engine must go through a pattern state by state, a byte of a text takes 50 ns for each KiB of the pattern's
# size; and it is matched two or three times.
_PATTERN_NANOS_BY_KIB: Final = 200


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a value: where it is, and where the rule stands in the schema, as JSON Pointers (RFC 6901)."""

    path: tuple[str | int, ...]
    schema_path: tuple[str | int, ...]
    description: str

    @property
    def keyword(self) -> str:
        """The keyword of the schema that it breaks; empty where it isn't known."""
        return str(self.schema_path[-1]) if self.schema_path else ""

    @property
    def pointer(self) -> str:
        """Where it is in the value."""
        return _pointer(self.path)

    @property
    def schema_pointer(self) -> str:
        """Where the rule stands in the schema."""
        return _pointer(self.schema_path)


class Checker:
    """Checks values by one schema. Raises InvalidArgument (TOOL_SCHEMA_INVALID) when it isn't a bounded one."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        # Earlier releases took some that are no longer taken.
        json_schema.check(schema, "schema", of_object=False)
        # What a fault says is the rule, never the value: values hold what callers would not see in an error or a log.
        self._validator = json_schema.compiled(schema, mask="the value")
        self._automaton = Automaton(schema, _pattern_nanos)
        self._turn = threading.Lock()

    def faults(self, value: Any, field: str) -> list[Fault]:
        """Returns what is wrong with a value, at most 100 faults, those of the outermost places first.

        Raises InvalidArgument (INVALID_FIELDS) when the check would take too long. Takes up to 0.1 s.
        """
        with self._turn:
            nanos, rules = self._automaton.cost(value, _MOST_NANOS)
        if nanos > _MOST_NANOS:
            description = "is too large to be checked by this schema in time"
            raise InvalidArgument(f"{field} {description}.", violations=[Violation(field, description)])
        if self._validator.is_valid(value):
            return []
        if rules > _MOST_RULES or rules * len(orjson.dumps(value)) > _MOST_COPIED:
            return [Fault((), (), "doesn't keep to the schema, and is too large for its faults to be listed")]
        found = [_fault(error) for error in self._validator.iter_errors(value)]
        return sorted(found, key=lambda fault: len(fault.path))[:_MOST_FAULTS]


class Checkers:
    """Checkers by schema; those asked for last are remembered."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Checker] = OrderedDict()
        self._turn = threading.Lock()

    def of(self, schema: Mapping[str, Any]) -> Checker:
        """Returns the checker of a schema; making one takes up to 0.1 s."""
        key = orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
        with self._turn:
            known = self._known.get(key)
        if known is None:
            known = Checker(schema)
        with self._turn:
            self._known[key] = known
            self._known.move_to_end(key)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return known


def violations(faults: list[Fault], field: str) -> Iterator[Violation]:
    """Writes faults as those of a request's field."""
    for fault in faults:
        yield Violation(json_schema.path_of(field, list(fault.path)), fault.description)


def _fault(error: jsonschema_rs.ValidationError) -> Fault:
    return Fault(tuple(error.instance_path), tuple(error.schema_path), error.message[:300])


def _pointer(path: tuple[str | int, ...]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


@lru_cache(maxsize=2_000)
def _pattern_nanos(pattern: str) -> int:
    """Tells what matching a pattern takes for a byte of text at most: by the size to which it compiles."""
    kib = 2
    while kib * 1024 < json_schema.PATTERN_BYTES:
        limits = jsonschema_rs.RegexOptions(size_limit=kib * 1024, dfa_size_limit=json_schema.PATTERN_BYTES)
        try:
            jsonschema_rs.Draft202012Validator({"pattern": pattern}, pattern_options=limits)
        except jsonschema_rs.ValidationError:
            kib *= 2
        else:
            break
    return kib * _PATTERN_NANOS_BY_KIB
