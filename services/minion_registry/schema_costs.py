"""What a check by a JSON Schema costs, counted before it is made: schemas and values come from callers.

A schema is read as an automaton: a state is all subschemas that look at one place of a value, each as often as it does,
and a step into a value (a property's name, an item's index) leads to the next state. What the library finds plays no
part, so that whatever it cuts short only makes it faster than counted.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

import orjson

Node = Mapping[str, Any]
# A property's name, an item's index, or None for every property that no subschema names.
Step = str | int | None

# Nanoseconds, each above what was measured: a subschema, one of its keywords, a name that an object is searched for, a
# division, a byte of a structure that values are compared with, an item that is told from the others.
_VISIT, _KEYWORD, _NAME, _DIVISION, _COMPARED, _DISTINCT = 60, 30, 25, 1_000, 30, 200

# Keywords that hold data, and those that hold schemas by name; whatever else holds a schema or a list of them.
_DATA: Final = frozenset({"const", "default", "enum", "examples"})
_NAMED: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
_DEFINITIONS: Final = frozenset({"$defs", "definitions"})
REFERENCES: Final = ("$ref", "$dynamicRef")
ANCHORS: Final = ("$anchor", "$dynamicAnchor")
# Keywords whose schemas look at the same place of a value as the one that they stand in.
_BESIDE: Final = ("not", "if", "then", "else")
_BESIDE_LISTS: Final = ("allOf", "anyOf", "oneOf")
_BESIDE_NAMED: Final = ("dependentSchemas", "dependencies")
# Keywords that lead from a value to what is in it, whatever it is called.
_LEADING: Final = frozenset(
    {
        *("additionalProperties", "patternProperties", "unevaluatedProperties"),
        *("items", "prefixItems", "contains", "unevaluatedItems"),
    }
)
_DEEPEST: Final = 200
# `false` is a rule as well.
_NOTHING: Final[Node] = {"not": True}


class CircularError(Exception):
    """A schema leads back to itself, or on and on, without going into the value."""


class GrowthError(Exception):
    """A schema's places can't all be looked at in the time there is for it."""


@dataclass(slots=True)
class State:
    """All that looks at one place of a value.

    `weight` is how many subschemas do, `rules` how many faults they can find, `nanos` what they take; the others are
    what each name or item of a container takes, and each byte of a text or name.
    """

    nodes: Mapping[int, int]
    weight: int = 0
    rules: int = 0
    nanos: int = 0
    object_nanos: int = 0
    name_rules: int = 0
    name_nanos: int = 0
    name_byte_nanos: int = 0
    item_nanos: int = 0
    text_byte_nanos: int = 0
    # The names and the number of indexes that lead elsewhere than all others. By name, those of `nodes` that name it;
    # and those that ask something of whatever is in the value.
    names: dict[str, list[int]] = field(default_factory=dict)
    leading: list[int] = field(default_factory=list)
    indexes: int = 0
    steps: "dict[Step, State | None]" = field(default_factory=dict)


class Automaton:
    """A schema as it looks at a value; `pattern_nanos` says what matching a pattern takes for a byte of text.

    With `most_work` no more subschemas are looked at than that, each as often as it is: few of them make very many
    states, where it depends on the way into the value which of them look at a place. Raises CircularError and
    GrowthError, at once or later.
    """

    def __init__(
        self, schema: Node, pattern_nanos: Callable[[str], int] = lambda _: 0, *, most_work: int | None = None
    ) -> None:
        self._schema = schema
        self._left = most_work
        self._anchors = anchors(schema)
        self._pattern_nanos = pattern_nanos
        self._nodes: dict[int, Node] = {}
        self._beside: dict[int, Counter[int] | None] = {}
        self._states: dict[frozenset[tuple[int, int]], State] = {}
        self.root = self._state(Counter({self._known(schema): 1}))

    def step(self, state: State, step: Step) -> State | None:
        """Goes to a property or an item; None where nothing looks at it."""
        if isinstance(step, int):
            step = min(step, state.indexes)
        elif step not in state.names:
            step = None
        if step not in state.steps:
            named = state.names.get(step, ()) if isinstance(step, str) else ()
            heads: Counter[int] = Counter()
            self._spend(len(named) + len(state.leading))
            for key in {*named, *state.leading}:
                for node in _below(self._nodes[key], step):
                    heads[self._known(node)] += state.nodes[key]
            state.steps[step] = self._state(heads) if heads else None
        return state.steps[step]

    def next(self, state: State) -> Iterator[State]:
        """Yields the states to which a step can lead."""
        steps: Iterable[Step] = (*state.names, None, *range(state.indexes + 1))
        yield from (found for step in steps if (found := self.step(state, step)) is not None)

    def cost(self, value: Any, most: int) -> tuple[int, int]:
        """Counts the nanoseconds that a check of a value takes, and the faults that it can find; stops above `most`."""
        nanos = rules = 0
        waiting: list[tuple[State, Any]] = [(self.root, value)]
        while waiting and nanos <= most:
            state, value = waiting.pop()
            nanos += state.nanos
            rules += state.rules
            if isinstance(value, str):
                nanos += state.text_byte_nanos and state.text_byte_nanos * len(value.encode())
            elif isinstance(value, dict):
                nanos += state.object_nanos + state.name_nanos * len(value)
                rules += state.name_rules * len(value)
                for name, item in value.items():
                    nanos += state.name_byte_nanos and state.name_byte_nanos * len(name.encode())
                    if (below := self.step(state, name)) is not None:
                        waiting.append((below, item))
            elif isinstance(value, list):
                nanos += state.item_nanos * len(value)
                for index, item in enumerate(value[: state.indexes]):
                    if (below := self.step(state, index)) is not None:
                        waiting.append((below, item))
                if (below := self.step(state, state.indexes)) is not None:
                    others = value[state.indexes :]
                    larger = [(below, item) for item in others if isinstance(item, str | dict | list)]
                    waiting.extend(larger)
                    nanos += below.nanos * (len(others) - len(larger))
                    rules += below.rules * (len(others) - len(larger))
        return nanos, rules

    def _known(self, node: Node) -> int:
        self._nodes[id(node)] = node
        return id(node)

    def _state(self, heads: Counter[int]) -> State:
        nodes: Counter[int] = Counter()
        for key, count in heads.items():
            same = self._same_place(self._nodes[key])
            self._spend(len(same))
            for inner, times in same.items():
                nodes[inner] += count * times
        known = frozenset(nodes.items())
        if known not in self._states:
            self._states[known] = self._weighed(nodes)
        return self._states[known]

    def _same_place(self, node: Node, depth: int = 0) -> Counter[int]:
        """Gives what looks at the same place as a subschema, itself included, and how often."""
        key = self._known(node)
        known = self._beside.get(key)
        if known is not None:
            return known
        if key in self._beside or depth > _DEEPEST:
            raise CircularError
        self._beside[key] = None
        found: Counter[int] = Counter()
        for part in self._parts_beside(node):
            found.update(self._same_place(part, depth + 1))
        if "unevaluatedProperties" in node or "unevaluatedItems" in node:
            # They visit what stands beside them a second time.
            found = Counter({inner: times * 2 for inner, times in found.items()})
        found[key] += 1
        self._spend(len(found))
        self._beside[key] = found
        return found

    def _spend(self, work: int) -> None:
        if self._left is not None:
            self._left -= work
            if self._left < 0:
                raise GrowthError

    def _parts_beside(self, node: Node) -> Iterator[Node]:
        yield from _schemas(node.get(keyword) for keyword in _BESIDE)
        for keyword in _BESIDE_LISTS:
            yield from _schemas(_list(node, keyword))
        for keyword in _BESIDE_NAMED:
            yield from _schemas(_object(node, keyword).values())
        yield from _schemas(
            target(self._schema, self._anchors, str(node[keyword])) for keyword in REFERENCES if keyword in node
        )

    def _weighed(self, nodes: Mapping[int, int], *, of_name: bool = False) -> State:
        state = State(nodes)
        for key, times in nodes.items():
            node = self._nodes[key]
            wanted = len(_list(node, "required"))
            wanted += sum(
                len(names) for names in _object(node, "dependentRequired").values() if isinstance(names, list)
            )
            patterns = _object(node, "patternProperties")
            state.weight += times
            state.rules += times * (len(node) + wanted)
            state.nanos += times * (_VISIT + _KEYWORD * len(node) + _comparison(node))
            state.object_nanos += times * _NAME * (len(_object(node, "properties")) + wanted)
            # Once for the schemas behind the patterns, once to know what `additionalProperties` is left.
            state.name_nanos += times * (_NAME + 2 * _KEYWORD * len(patterns))
            state.name_byte_nanos += times * 2 * sum(map(self._pattern_nanos, patterns))
            # A name has no names, whatever its schema says of some.
            if isinstance(node.get("propertyNames"), dict) and not of_name:
                names = self._weighed(self._same_place(node["propertyNames"]), of_name=True)
                state.name_rules += times * names.rules
                state.name_nanos += times * names.nanos
                state.name_byte_nanos += times * names.text_byte_nanos
            if "uniqueItems" in node:
                state.item_nanos += times * _DISTINCT
            if isinstance(node.get("pattern"), str):
                state.text_byte_nanos += times * self._pattern_nanos(node["pattern"])
            properties = _object(node, "properties")
            self._spend(len(properties))
            for name in properties:
                state.names.setdefault(name, []).append(key)
            if any(keyword in node for keyword in _LEADING):
                state.leading.append(key)
            state.indexes = max(state.indexes, len(_list(node, "prefixItems")))
        return state


def anchors(schema: Node) -> dict[str, Node]:
    """Gives the subschemas that have a name of their own, by how they are referred to."""
    return {f"#{node[keyword]}": node for node in walk(schema) for keyword in ANCHORS if keyword in node}


def walk(schema: Node) -> Iterator[Node]:
    """Yields every subschema once, the whole first."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(parts(node, definitions=True))


def parts(node: Node, *, definitions: bool) -> Iterator[Node]:
    """Yields the subschemas that stand in a schema; true and false are none."""
    for keyword, value in node.items():
        if keyword in _DATA or (keyword in _DEFINITIONS and not definitions):
            continue
        if isinstance(value, dict):
            candidates = list(value.values()) if keyword in _NAMED else [value]
        else:
            candidates = value if isinstance(value, list) else []
        yield from (part for part in candidates if isinstance(part, dict))


def target(schema: Any, named: Mapping[str, Node], reference: str) -> Any:
    """Follows a reference (RFC 6901 in a URI fragment); None where it leads nowhere, which compiling then says."""
    if reference in named:
        return named[reference]
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


def _below(node: Node, step: Step) -> Iterator[Node]:
    """Yields what a subschema asks of a property or an item; of patterns, that all of them match."""
    if isinstance(step, int):
        prefix = _list(node, "prefixItems")
        yield from _schemas([prefix[step] if step < len(prefix) else node.get("items")])
        yield from _schemas([node.get("contains"), node.get("unevaluatedItems")])
        return
    named = _object(node, "properties")
    yield from _schemas([named[step] if step is not None and step in named else node.get("additionalProperties")])
    yield from _schemas([node.get("unevaluatedProperties"), *_object(node, "patternProperties").values()])


def _schemas(candidates: Iterable[Any]) -> Iterator[Node]:
    for candidate in candidates:
        if isinstance(candidate, dict):
            yield candidate
        elif candidate is False:
            yield _NOTHING


def _comparison(node: Node) -> int:
    """Tells what comparing with a subschema's data takes; texts and numbers are looked up in no time."""
    nanos = _DIVISION if "multipleOf" in node else 0
    for data in ([node.get("const")], _list(node, "enum")):
        if any(isinstance(value, dict | list) for value in data):
            nanos += _COMPARED * len(orjson.dumps(data))
    return nanos


def _list(node: Node, keyword: str) -> list[Any]:
    value = node.get(keyword)
    return value if isinstance(value, list) else []


def _object(node: Node, keyword: str) -> dict[str, Any]:
    value = node.get(keyword)
    return value if isinstance(value, dict) else {}
