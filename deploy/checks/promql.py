"""Reads PromQL as far as its metrics and labels go: what a query asks for, and which labels its result has.

Whether a query is valid is promtool's to say. What promtool can't know is which metrics there are: a misspelt name is a
valid query that never gives anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from promql_parser import (
    AggModifierType,
    AggregateExpr,
    BinaryExpr,
    BinModifier,
    Call,
    Expr,
    LabelModifierType,
    MatchOp,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    ValueType,
    VectorMatchCardinality,
    VectorSelector,
    parse,
)

from deploy.checks import label_values

_KEEPING = {"topk", "bottomk", "limitk", "limit_ratio"}  # they choose series and leave them as they are
_SETS = {"and", "or", "unless"}
_COMPARISONS = {"==", "!=", ">", "<", ">=", "<="}
_GROUPS = (("group_left", VectorMatchCardinality.ManyToOne), ("group_right", VectorMatchCardinality.OneToMany))


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
    try:
        expression = parse(text)
    except ValueError as fault:
        return Query(frozenset(), frozenset(), (), (f"can't be read: {fault}",))
    reader = _Reader(series)
    value = reader.value(expression)
    return Query(value.labels, frozenset(reader.metrics), tuple(reader.operands) or (text,), tuple(reader.faults))


@dataclass(frozen=True, slots=True)
class _Value:
    labels: frozenset[str]
    scalar: bool = False
    # An unknown metric was told of already; what follows from it is not.
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class _Matching:
    """How the two sides of an operator find each other."""

    on: frozenset[str] | None = None
    ignoring: frozenset[str] = frozenset()
    group_side: str = ""
    included: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Reader:
    series: Mapping[str, frozenset[str]]
    faults: list[str] = field(default_factory=list)
    metrics: set[str] = field(default_factory=set)
    operands: list[str] = field(default_factory=list)

    def value(self, expression: Expr) -> _Value:
        match expression:
            case NumberLiteral() | StringLiteral():
                return _Value(frozenset(), scalar=True)
            case VectorSelector():
                return self._selector(expression)
            case MatrixSelector():
                return self._selector(expression.vector_selector)
            case ParenExpr() | UnaryExpr() | SubqueryExpr():
                return self.value(expression.expr)
            case AggregateExpr():
                return self._aggregation(expression)
            case BinaryExpr():
                return self._binary(expression)
            case Call():
                return self._call(expression)
            case _:
                raise TypeError(f"PromQL of a kind that is not known here: {expression.prettify()}")

    def _selector(self, selector: VectorSelector) -> _Value:
        name = selector.name
        if name is None:
            self.faults.append("a selector without a metric's name")
            return _Value(frozenset(), unknown=True)
        labels = self.series.get(name)
        self.metrics.add(name)
        if labels is None:
            self.faults.append(f"no metric {name}")
            return _Value(frozenset(), unknown=True)
        for matchers in (selector.matchers.matchers, *selector.matchers.or_matchers):
            self.faults += [f"{name} has no label {each.name}" for each in matchers if each.name not in labels]
            for each in matchers:
                if each.name in labels:
                    self.faults += label_values.faults(name, each)
        return _Value(labels)

    def _aggregation(self, aggregation: AggregateExpr) -> _Value:
        name, modifier = str(aggregation.op), aggregation.modifier
        if aggregation.param is not None:
            self.value(aggregation.param)
        value = self.value(aggregation.expr)
        names = frozenset(modifier.labels if modifier else ())
        without = modifier is not None and modifier.type == AggModifierType.Without
        self._demand(names, value, f"`{'without' if without else 'by'}` of {name}")
        if name in _KEEPING:
            return value
        kept = value.labels - names if without else names
        if name == "count_values" and aggregation.param is not None:
            kept |= _texts([aggregation.param])
        return _Value(kept, unknown=value.unknown)

    def _binary(self, binary: BinaryExpr) -> _Value:
        operator = str(binary.op)
        left, right = self.value(binary.lhs), self.value(binary.rhs)
        if operator in _COMPARISONS:
            sides = ((binary.lhs, left), (binary.rhs, right))
            self.operands += [expression.prettify().strip() for expression, value in sides if not value.scalar]
        return self._joined(operator, left, right, _matching(binary.modifier))

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

    def _call(self, call: Call) -> _Value:
        name = call.func.name
        values = [self.value(argument) for argument in call.args]
        if call.func.return_type == ValueType.Scalar:
            return _Value(frozenset(), scalar=True)
        # Without a vector it is made of numbers, and has no labels.
        vector = next((value for value in values if not value.scalar), _Value(frozenset()))
        wanted, labels = frozenset[str](), vector.labels
        match name:
            case "histogram_quantile":
                wanted = frozenset({"le"})
                labels = vector.labels - wanted
            case "label_replace":
                wanted = _texts(call.args[3:4])
                labels = vector.labels | _texts(call.args[1:2])
            case "label_join":
                wanted = _texts(call.args[3:])
                labels = vector.labels | _texts(call.args[1:2])
            case "absent" | "absent_over_time":
                labels = _demanded_labels(call.args[0])
        self._demand(wanted, vector, name)
        return _Value(labels, unknown=vector.unknown)

    def _demand(self, wanted: frozenset[str], value: _Value, where: str) -> None:
        if not value.unknown:
            self.faults += [f"no label {name} for {where}" for name in sorted(wanted - value.labels)]


def _matching(modifier: BinModifier | None) -> _Matching:
    if modifier is None:
        return _Matching()
    names = frozenset(modifier.matching.labels if modifier.matching else ())
    on = modifier.matching is not None and modifier.matching.type == LabelModifierType.Include
    return _Matching(
        on=names if on else None,
        ignoring=frozenset() if on else names,
        group_side=next((word for word, cardinality in _GROUPS if modifier.card == cardinality), ""),
        included=frozenset(modifier.group_labels or ()),
    )


def _texts(arguments: Sequence[Expr]) -> frozenset[str]:
    """The names of labels that functions take as strings."""
    return frozenset(each.val for each in arguments if isinstance(each, StringLiteral))


def _demanded_labels(expression: Expr) -> frozenset[str]:
    """What `absent` knows of series that are not there: the labels of which the selector demands one value."""
    while isinstance(expression, ParenExpr):
        expression = expression.expr
    selector = expression.vector_selector if isinstance(expression, MatrixSelector) else expression
    if not isinstance(selector, VectorSelector):
        return frozenset()
    names = [matcher.name for matcher in selector.matchers.matchers]
    equal = {matcher.name for matcher in selector.matchers.matchers if matcher.op == MatchOp.Equal}
    return frozenset(name for name in equal if names.count(name) == 1)
