"""Checks what Prometheus and Grafana are given: `python -m deploy.checks.monitoring [FOLDER]`.

Every query of a dashboard or a rule must be valid, ask for metrics and labels that there are, and have the labels that
its legend or its annotations show. Faults are told all at once, each with its file and its panel or rule; the exit code
is 1 then, and 2 where promtool is missing.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from deploy.checks import dashboards, metric_tables, promql, promtool, rules, scrape
from deploy.checks.queries import Asked

ROOT = Path(__file__).parents[2]


def queries(root: Path) -> list[Asked]:
    """All queries of rules and dashboards."""
    asked = [rule.asked for rule in rules.read(root)]
    return asked + [query for dashboard in dashboards.read(root) for query in dashboard.asked()]


def faults(root: Path) -> list[str]:
    """Gives everything that is wrong below a root; raises PromtoolMissingError."""
    try:
        written, drawn = rules.read(root), dashboards.read(root)
        series = metric_tables.known_series(root)
        found = list(scrape.faults(root))
    except (ValueError, yaml.YAMLError) as fault:
        return [str(fault)]
    asked = [*(rule.asked for rule in written), *(query for each in drawn for query in each.asked())]
    found += [*rules.faults(root, written), *dashboards.faults(root, drawn)]
    for rule in written:
        if rule.record:
            series[rule.record] = promql.read(rule.asked.filled(), series).labels | set(rule.labels)
    for query in asked:
        found += _faults_of(query, series)
    return [*found, *promtool.faults(root, asked)]


def _faults_of(asked: Asked, series: dict[str, frozenset[str]]) -> Iterator[str]:
    query = promql.read(asked.filled(), series)
    for fault in query.faults:
        yield f"{asked.place}: {fault}"
    if not query.faults:
        for label in sorted(asked.shown_labels - query.labels):
            yield f"{asked.place}: shows the label {label}, which its result has not"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the faults, or how much was looked at; `--list` prints all queries."""
    summary = (__doc__ or "").partition(":")[0]
    parser = argparse.ArgumentParser(prog="python -m deploy.checks.monitoring", description=summary)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT, help="the repository, unless it is this one")
    parser.add_argument("--list", action="store_true", help="print every query and where it stands")
    given = parser.parse_args(arguments)
    if given.list:
        for query in queries(given.folder):
            print(f"{query.place}\n    {' '.join(query.expression.split())}")
        return 0
    try:
        found = faults(given.folder)
    except promtool.PromtoolMissingError as missing:
        print(f"error: {missing}", file=sys.stderr)
        return 2
    for fault in found:
        print(f"error: {fault}", file=sys.stderr)
    if not found:
        print(f"{len(queries(given.folder))} queries of rules and dashboards ask for what there is")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
