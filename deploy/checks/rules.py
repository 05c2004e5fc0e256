"""Reads alerting and recording rules, and tells what their authors forgot."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.checks.queries import Asked

RULES = Path("deploy/prometheus/rules")
TESTS = Path("deploy/prometheus/tests")

_SEVERITIES = {"critical", "warning", "info"}
# `action` is the first thing to do: an alert that asks for nothing is no alert.
_ANNOTATIONS = ("summary", "description", "action")
_LABEL_USED = re.compile(r"\$labels\.(\w+)")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule; `alert` is its name when it alerts, `record` when it records."""

    alert: str
    record: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    asked: Asked


def read(root: Path) -> list[Rule]:
    """Reads all rules. Files are promtool's to check; one that can't be read as YAML raises yaml.YAMLError."""
    return [rule for path in sorted((root / RULES).glob("*.yml")) for rule in _of_file(root, path)]


def _of_file(root: Path, path: Path) -> Iterator[Rule]:
    document: Any = yaml.safe_load(path.read_text()) or {}
    for group in document.get("groups", ()):
        for rule in group.get("rules", ()):
            alert, record = rule.get("alert", ""), rule.get("record", "")
            labels, annotations = rule.get("labels", {}), rule.get("annotations", {})
            shown = frozenset(_LABEL_USED.findall(" ".join(annotations.values()))) - set(labels)
            where = f"alert {alert}" if alert else f"record {record}"
            asked = Asked(path.relative_to(root), where, str(rule.get("expr", "")), shown_labels=shown)
            yield Rule(alert, record, labels, annotations, asked)


def faults(root: Path, rules: list[Rule]) -> Iterator[str]:
    """Tells of alerts with a part missing, twice the same name, or without a test of each kind."""
    seen: set[str] = set()
    tested = _tested(root)
    for rule in rules:
        name = rule.alert or rule.record
        if name in seen:
            yield f"{rule.asked.place}: its name is another rule's"
        seen.add(name)
        if not rule.alert:
            continue
        if rule.labels.get("severity") not in _SEVERITIES:
            yield f"{rule.asked.place}: `severity` is not one of {', '.join(sorted(_SEVERITIES))}"
        for part in _ANNOTATIONS:
            if not str(rule.annotations.get(part, "")).strip():
                yield f"{rule.asked.place}: no `{part}`"
        for kind, fires in (("fires", True), ("stays quiet", False)):
            if (rule.alert, fires) not in tested:
                yield f"{rule.asked.place}: no test in {TESTS} in which it {kind}"
    for name in sorted({name for name, _ in tested} - seen):
        yield f"{TESTS}: tests {name}, which no rule is called"


def _tested(root: Path) -> set[tuple[str, bool]]:
    """The alerts that are tested: by name, and whether the test expects it to fire."""
    found: set[tuple[str, bool]] = set()
    for path in sorted((root / TESTS).glob("*.yml")):
        document: Any = yaml.safe_load(path.read_text()) or {}
        for test in document.get("tests", ()):
            for case in test.get("alert_rule_test", ()):
                found.add((case.get("alertname", ""), bool(case.get("exp_alerts"))))
    return found
