"""The metrics that queries may ask for: ours from `docs/metrics.md`, others' from the table beside this file."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# What Prometheus puts on every series: see deploy/prometheus/prometheus.yml.
TARGET_LABELS = frozenset({"job", "instance"})
OURS = Path("docs/metrics.md")
OTHERS = Path("deploy/checks/foreign_metrics.md")

_ROW = re.compile(r"^\|\s*`(?P<metric>[a-zA-Z_:][a-zA-Z0-9_:]*)`\s*\|(?P<rest>.*)\|\s*$")
_TYPES = ("counter", "gauge", "histogram", "summary", "info")


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of a table: `type` is counter, gauge, histogram, summary or info."""

    name: str
    type: str
    labels: frozenset[str]


class TableError(ValueError):
    """A table can't be read; the message says where and why."""


def known_series(root: Path) -> dict[str, frozenset[str]]:
    """Gives each series' labels by its name, the buckets of histograms and the like included.

    Raises TableError when a table is missing, empty or has a row that can't be read.
    """
    series: dict[str, frozenset[str]] = {}
    # Our targets have the label `service` besides.
    for path, target in ((OURS, TARGET_LABELS | {"service"}), (OTHERS, TARGET_LABELS)):
        for metric in _read(root, path):
            series.update(_series(metric, target))
    return series


def _read(root: Path, path: Path) -> Iterator[Metric]:
    try:
        lines = (root / path).read_text().splitlines()
    except FileNotFoundError as missing:
        raise TableError(f"{path}: no such file") from missing
    found = 0
    for number, line in enumerate(lines, 1):
        row = _ROW.match(line)
        if row is None:
            continue
        cells = [cell.strip() for cell in row["rest"].split("|")]
        if len(cells) < 4 or cells[0] not in _TYPES:
            raise TableError(f"{path}:{number}: not `| metric | type | labels | services | meaning |`")
        found += 1
        yield Metric(row["metric"], cells[0], frozenset(re.findall(r"`([a-z_]+)`", cells[1])))
    if not found:
        raise TableError(f"{path}: no table of metrics")


def _series(metric: Metric, target: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    labels = metric.labels | target
    if metric.type == "histogram":
        yield f"{metric.name}_bucket", labels | {"le"}
    if metric.type == "summary":
        yield metric.name, labels | {"quantile"}
    if metric.type in {"histogram", "summary"}:
        yield f"{metric.name}_sum", labels
        yield f"{metric.name}_count", labels
        return
    yield metric.name, labels
