"""Metrics keep their labels few and bounded: whoever adds one chooses from what is here, or argues for more here."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.architecture.contract import ROOT
from tests.architecture.metrics_table import listed

# Each with what bounds it. Never among them: tenant, agent, session, user, run, key, address, and whatever they wrote.
ALLOWED: Mapping[str, str] = {
    "grpc_type": "four kinds of methods",
    "grpc_service": "the contract",
    "grpc_method": "the contract",
    "grpc_code": "gRPC's status codes",
    "state": "connections': two; runs': those in which they end",
    "version": "of this release: one",
    "listener": "tls, mtls",
    "behavior_type": "the behaviours of this release",
    "part": "three",
    "operation": "two",
    "provider": "those that the operator has configured",
    "model": "what is configured, 100 names of the price list, `other`",
    "kind": "of tokens: four",
    "outcome": "an enumeration each",
    "tool": "the builtins, and one more",
    "plan": "four",
    "extractor": "those of this release, and `other`",
}
_KINDS = {
    "Counter": "counter",
    "Gauge": "gauge",
    "Histogram": "histogram",
    "Info": "gauge",
    "Summary": "summary",
    "Enum": "gauge",
    "CounterMetricFamily": "counter",
    "GaugeMetricFamily": "gauge",
    "HistogramMetricFamily": "histogram",
    "GaugeHistogramMetricFamily": "histogram",
    "SummaryMetricFamily": "summary",
    "InfoMetricFamily": "gauge",
    "StateSetMetricFamily": "gauge",
    "UnknownMetricFamily": "unknown",
    "UntypedMetricFamily": "unknown",
}


@dataclass(frozen=True)
class Defined:
    """A metric as the code defines it, under the name that is exposed."""

    name: str
    type: str
    labels: frozenset[str]
    registered: bool
    place: str


def _defined(path: Path) -> Iterator[Defined]:
    tree = ast.parse(path.read_text())
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    imported = {
        (name.asname or name.name): name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prometheus_client")
        for name in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        made = imported.get(node.func.id, "")
        if made not in _KINDS:
            continue
        place = f"{path.relative_to(ROOT)}:{node.lineno}"
        given = {each.arg: each.value for each in node.keywords}
        name = node.args[0] if node.args else given["name"]
        assert isinstance(name, ast.Constant), f"{place}: a metric's name stands where it is made"
        is_family = made.endswith("Family")
        position = 3 if is_family else 2
        labels = given.get("labels" if is_family else "labelnames")
        if labels is None and len(node.args) > 2 and not is_family:
            labels = node.args[position]
        exposed = str(name.value)
        if made in {"Counter", "CounterMetricFamily"}:
            exposed = exposed.removesuffix("_total") + "_total"
        if made in {"Info", "InfoMetricFamily"}:
            exposed += "_info"
        found = frozenset(_texts(labels, constants, place)) if labels is not None else frozenset()
        if made == "Info":
            found = frozenset({"version"})
        yield Defined(exposed, _KINDS[made], found, is_family or "registry" in given, place)


def _texts(node: ast.expr, constants: Mapping[str, ast.expr], place: str) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            for part in parts:
                yield from _texts(part, constants, place)
        case ast.Starred(value=ast.Name(id=name)) | ast.Name(id=name) if name in constants:
            yield from _texts(constants[name], constants, place)
        case _:
            pytest.fail(f"{place}: labels' names stand where the metric is made, or in a constant of the module")


def _all() -> list[Defined]:
    paths = [path for source in ("services", "shared") for path in sorted((ROOT / source).rglob("*.py"))]
    return [
        metric
        for path in paths
        if not path.is_relative_to(ROOT / "shared" / "minion_testing")
        for metric in _defined(path)
    ]


def test_labels_are_those_that_have_a_bound() -> None:
    found = _all()
    assert len(found) > 30
    assert [(each.place, each.name, each.labels - set(ALLOWED)) for each in found if each.labels - set(ALLOWED)] == []
    assert set(ALLOWED) - {label for each in found for label in each.labels} == set()


def test_each_metric_is_of_a_services_own_registry() -> None:
    assert [each.place for each in _all() if not each.registered] == []


def test_what_is_defined_is_what_is_listed() -> None:
    """The labels and types of all, those included that no stack of the tests shows."""
    # The Python client's own, and the process'.
    ours = {name: row for name, row in listed().items() if not name.startswith(("process_", "python_"))}
    defined = {each.name: (each.type, each.labels) for each in _all()}
    assert defined == {name: (row.type, row.labels) for name, row in ours.items()}


def test_a_label_that_has_no_bound_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.architecture.test_metrics.ROOT", tmp_path)
    path = tmp_path / "metrics.py"
    path.write_text(
        "from prometheus_client import Counter as C\n"
        "from prometheus_client.core import GaugeMetricFamily\n"
        "_MORE = ('tenant_id',)\n"
        "C('a', 'A.', ('outcome', *_MORE))\n"
        "GaugeMetricFamily('b', 'B.', labels=['user'])\n"
    )
    first, second = _defined(path)
    assert (first.name, first.registered, second.type) == ("a_total", False, "gauge")
    assert [sorted(each.labels) for each in (first, second)] == [["outcome", "tenant_id"], ["user"]]
