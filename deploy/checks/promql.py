"""Reads PromQL as far as its metrics and labels go: what a query asks for, and which labels its result has.

Whether a query is valid is promtool's to say. What promtool can't know is which metrics there are: a misspelt name is a
valid query that never gives anything.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""\s+ | \#[^\n]*
    | (?P<string> "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | `[^`]*` )
    | (?P<number> 0x[0-9a-fA-F]+ | (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]) )
    | (?P<duration> (?:\d+(?:ms|[smhdwy]))+ )
    | (?P<name> [a-zA-Z_:][a-zA-Z0-9_:]* )
    | (?P<sign> =~ | !~ | == | != | >= | <= | [-+*/%^<>=(){}\[\],:@] )
    """,
    re.VERBOSE,
)
_AGGREGATIONS = {"sum", "avg", "count", "min", "max", "group", "stddev", "stdvar", "quantile", "topk", "bottomk"}
_KEEPING = {"topk", "bottomk"}  # they choose series and leave them as they are
_MATCHERS = {"=", "!=", "=~", "!~"}
_PRECEDENCE = {
    **dict.fromkeys(("or",), 1),
    **dict.fromkeys(("and", "unless"), 2),
    **dict.fromkeys(("==", "!=", ">", "<", ">=", "<="), 3),
    **dict.fromkeys(("+", "-"), 4),
    **dict.fromkeys(("*", "/", "%", "atan2"), 5),
    "^": 6,
}
_SETS = {"and", "or", "unless"}
_COMPARISONS = {"==", "!=", ">", "<", ">=", "<="}


@dataclass(frozen=True, slots=True)
class Query:
    """A query that was read.

    `labels` are those of its result, `metrics` the names that it asks for, `operands` what it compares, without the
    comparison: all of it where nothing is compared.
    """

    labels: frozenset[str]
    metrics: frozenset[str]
    operands: tuple[str, ...]
    faults: tuple[str, ...]


def read(text: str, series: Mapping[str, frozenset[str]]) -> Query:
    """Reads a query against the series that there are, by name with their labels."""
    reader = _Reader(text, series)
    try:
        value = reader.whole()
    except _UnreadableError as fault:
        return Query(frozenset(), frozenset(reader.metrics), (), (*reader.faults, f"can't be read: {fault}"))
    return Query(value.labels, frozenset(reader.metrics), tuple(reader.operands) or (text,), tuple(reader.faults))


class _UnreadableError(Exception):
    """Not the PromQL that we know."""


@dataclass(frozen=True, slots=True)
class _Value:
    labels: frozenset[str]
    scalar: bool = False
    # An unknown metric was told of already; what follows from it is not.
    unknown: bool = False
    # The text of a string literal, which functions take for names of labels.
    text: str = ""


@dataclass(frozen=True, slots=True)
class _Matching:
    """How the two sides of an operator find each other."""

    on: frozenset[str] | None = None
    ignoring: frozenset[str] = frozenset()
    group_side: str = ""
    included: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Reader:
    text: str
    series: Mapping[str, frozenset[str]]
    faults: list[str] = field(default_factory=list)
    metrics: set[str] = field(default_factory=set)
    operands: list[str] = field(default_factory=list)
    _tokens: list[tuple[str, str]] = field(default_factory=list)
    _spans: list[tuple[int, int]] = field(default_factory=list)
    _at: int = 0

    def whole(self) -> _Value:
        position = 0
        while position < len(self.text):
            match = _TOKEN.match(self.text, position)
            if match is None:
                raise _UnreadableError(f"{self.text[position : position + 10]!r}")
            if match.lastgroup is not None:
                self._tokens.append((match.lastgroup, match[match.lastgroup]))
                self._spans.append(match.span())
            position = match.end()
        value = self._expression(0)
        if self._at < len(self._tokens):
            raise _UnreadableError(f"{self._tokens[self._at][1]!r} is one too many")
        return value

    def _peek(self) -> str:
        kind, text = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        return "" if kind == "string" else text

    def _take(self) -> tuple[str, str]:
        if self._at == len(self._tokens):
            raise _UnreadableError("it ends too soon")
        self._at += 1
        return self._tokens[self._at - 1]

    def _accept(self, *texts: str) -> bool:
        if self._peek() not in texts:
            return False
        self._at += 1
        return True

    def _expect(self, text: str) -> None:
        _, found = self._take()
        if found != text:
            raise _UnreadableError(f"{found!r} where {text!r} should stand")

    def _expression(self, least: int) -> _Value:
        begin = self._at
        left = self._unary()
        while (precedence := _PRECEDENCE.get(self._peek(), 0)) > least:
            end = self._at
            _, operator = self._take()
            self._accept("bool")
            matching = self._matching()
            right_begin = self._at
            right = self._expression(precedence - 1 if operator == "^" else precedence)
            if operator in _COMPARISONS:
                sides = ((left, begin, end), (right, right_begin, self._at))
                self.operands += [self._between(*span) for side, *span in sides if not side.scalar]
            left = self._joined(operator, left, right, matching)
        return left

    def _between(self, begin: int, end: int) -> str:
        return self.text[self._spans[begin][0] : self._spans[end - 1][1]]

    def _matching(self) -> _Matching:
        on, ignoring, side, included = None, frozenset[str](), "", frozenset[str]()
        if self._accept("on"):
            on = self._names()
        elif self._accept("ignoring"):
            ignoring = self._names()
        if self._peek() in {"group_left", "group_right"}:
            _, side = self._take()
            included = self._names() if self._peek() == "(" else included
        return _Matching(on, ignoring, side, included)

    def _joined(self, operator: str, left: _Value, right: _Value, matching: _Matching) -> _Value:
        unknown = left.unknown or right.unknown
        if left.scalar or right.scalar:
            kept = right if left.scalar else left
            return _Value(kept.labels, left.scalar and right.scalar, unknown)
        if matching.on is not None:
            for side in (left, right):
                self._demand(matching.on, side, f"`on` of {operator}")
        if operator in _SETS:
            return _Value(left.labels | right.labels if operator == "or" else left.labels, unknown=unknown)
        if matching.on is None and not matching.group_side and not unknown:
            sides = [value.labels - matching.ignoring for value in (left, right)]
            if sides[0] != sides[1]:
                shown = " and ".join(f"({', '.join(sorted(side))})" for side in sides)
                self.faults.append(f"the sides of {operator} have other labels and never match: {shown}")
        if matching.group_side:
            many, one = (left, right) if matching.group_side == "group_left" else (right, left)
            self._demand(matching.included, one, matching.group_side)
            return _Value(many.labels | matching.included, unknown=unknown)
        return _Value(matching.on if matching.on is not None else left.labels - matching.ignoring, unknown=unknown)

    def _demand(self, wanted: frozenset[str], value: _Value, where: str) -> None:
        if not value.unknown:
            self.faults += [f"no label {name} for {where}" for name in sorted(wanted - value.labels)]

    def _unary(self) -> _Value:
        if self._accept("-", "+"):
            return self._expression(_PRECEDENCE["*"])
        value = self._primary()
        while True:
            if self._accept("["):
                while not self._accept("]"):
                    self._take()
            elif self._accept("offset"):
                self._accept("-")
                self._take()
            elif self._accept("@"):
                self._unary()
            else:
                return value

    def _primary(self) -> _Value:
        kind, text = self._take()
        if kind == "number" or (kind == "name" and text.lower() in {"inf", "nan"}):
            return _Value(frozenset(), scalar=True)
        if kind == "string":
            return _Value(frozenset(), scalar=True, text=text[1:-1])
        if text == "(":
            value = self._expression(0)
            self._expect(")")
            return value
        if text == "{":
            raise _UnreadableError("a selector without a metric's name")
        if kind != "name":
            raise _UnreadableError(f"{text!r} where an expression should stand")
        if text in _AGGREGATIONS and self._peek() in {"(", "by", "without"}:
            return self._aggregation(text)
        return self._call(text) if self._peek() == "(" else self._selector(text)

    def _selector(self, name: str) -> _Value:
        labels = self.series.get(name)
        self.metrics.add(name)
        if labels is None:
            self.faults.append(f"no metric {name}")
        if self._accept("{"):
            while not self._accept("}"):
                _, label = self._take()
                _, matcher = self._take()
                kind, _ = self._take()
                if matcher not in _MATCHERS or kind != "string":
                    raise _UnreadableError(f"{label!r} is not followed by a matcher and a string")
                if labels is not None and label not in labels:
                    self.faults.append(f"{name} has no label {label}")
                self._accept(",")
        return _Value(labels or frozenset(), unknown=labels is None)

    def _aggregation(self, name: str) -> _Value:
        clause = self._clause()
        self._expect("(")
        arguments = self._arguments()
        clause = clause or self._clause()
        value = arguments[-1]
        word, names = clause or ("", frozenset[str]())
        self._demand(names, value, f"`{word}` of {name}")
        if name in _KEEPING:
            return value
        kept = {"by": names, "without": value.labels - names}.get(word, frozenset[str]())
        return _Value(kept, unknown=value.unknown)

    def _clause(self) -> tuple[str, frozenset[str]] | None:
        if self._peek() not in {"by", "without"}:
            return None
        _, word = self._take()
        return word, self._names()

    def _call(self, name: str) -> _Value:
        self._expect("(")
        arguments = self._arguments()
        if name in {"time", "scalar", "pi"}:
            return _Value(frozenset(), scalar=True)
        if name == "vector":
            return _Value(frozenset())
        vector = next((value for value in arguments if not value.scalar), _Value(frozenset()))
        if name == "histogram_quantile":
            self._demand(frozenset({"le"}), vector, name)
            return _Value(vector.labels - {"le"}, unknown=vector.unknown)
        if name == "label_replace":
            self._demand(frozenset({arguments[3].text}) if len(arguments) == 5 else frozenset(), vector, name)
            return _Value(vector.labels | {arguments[1].text}, unknown=vector.unknown)
        return vector

    def _arguments(self) -> list[_Value]:
        values: list[_Value] = []
        while not self._accept(")"):
            values.append(self._expression(0))
            self._accept(",")
        return values or [_Value(frozenset())]

    def _names(self) -> frozenset[str]:
        self._expect("(")
        names = set()
        while not self._accept(")"):
            names.add(self._take()[1])
            self._accept(",")
        return frozenset(names)
