"""Reads Grafana's dashboards, and tells what Grafana would show as an empty or a wrong panel without a word."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

from deploy.checks.queries import GRAFANA_VALUES, Asked, variables

DASHBOARDS = Path("deploy/grafana/dashboards")
DATASOURCES = Path("deploy/grafana/provisioning/datasources")
SCHEMA = Path(__file__).with_name("dashboard.schema.json")

# Grafana's own datasource for marks of deployments and the like.
_OWN_DATASOURCE = "-- Grafana --"
_WIDTH = 24
_LEGEND_LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_VARIABLE_QUERY = re.compile(r"label_values\((?P<selector>.+),\s*(?P<label>\w+)\)")


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard as its file holds it; `file` is relative to the repository."""

    file: Path
    content: Mapping[str, Any]

    @property
    def panels(self) -> list[Mapping[str, Any]]:
        """All panels, the titles of rows too."""
        found: Sequence[Mapping[str, Any]] = self.content.get("panels", ())
        return [*found, *(inner for panel in found for inner in panel.get("panels", ()))]

    @property
    def values(self) -> dict[str, str]:
        """A value for each of the dashboard's variables: what `All` stands for."""
        return {variable["name"]: variable.get("allValue", ".*") for variable in self._variables()}

    def asked(self) -> Iterator[Asked]:
        """All queries: those of panels, those that list a variable's values, those of annotations."""
        for panel in self.panels:
            for target in panel.get("targets", ()):
                labels = frozenset(_LEGEND_LABEL.findall(target.get("legendFormat", "")))
                where = f"panel {panel.get('title', '')!r}, query {target.get('refId', '')}"
                yield Asked(self.file, where, target.get("expr", ""), self.values, labels)
        for variable in self._variables():
            match = _VARIABLE_QUERY.fullmatch(str(variable.get("definition", "")))
            selector, label = (match["selector"], match["label"]) if match else (str(variable.get("definition")), "")
            where = f"variable {variable['name']}"
            yield Asked(self.file, where, selector, self.values, frozenset({label} if label else ()))
        for mark in self.content.get("annotations", {}).get("list", ()):
            labels = frozenset(_LEGEND_LABEL.findall(mark.get("titleFormat", "") + mark.get("textFormat", "")))
            yield Asked(self.file, f"annotation {mark.get('name')!r}", mark.get("expr", ""), self.values, labels)

    def _variables(self) -> Sequence[Mapping[str, Any]]:
        listed: Sequence[Mapping[str, Any]] = self.content.get("templating", {}).get("list", ())
        return listed


def read(root: Path) -> list[Dashboard]:
    """Reads all dashboards; one that is no JSON raises ValueError, which names the file."""
    found = []
    for path in sorted((root / DASHBOARDS).glob("*.json")):
        try:
            found.append(Dashboard(path.relative_to(root), json.loads(path.read_text())))
        except ValueError as fault:
            raise ValueError(f"{path.relative_to(root)}: {fault}") from fault
    return found


def faults(root: Path, dashboards: Sequence[Dashboard]) -> Iterator[str]:
    """Tells of everything but the queries' own faults."""
    if not dashboards:
        yield f"{DASHBOARDS}: no dashboards"
    provisioned = _provisioned(root)
    validator = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text()))
    uids: dict[str, Path] = {}
    for dashboard in dashboards:
        shape = [
            f"{dashboard.file}: {'.'.join(map(str, fault.instance_path))}: {fault.message}"
            for fault in validator.iter_errors(dashboard.content)
        ]
        yield from shape
        if shape:
            continue  # what follows would trip over it
        uid = dashboard.content["uid"]
        if uid in uids:
            yield f"{dashboard.file}: its uid {uid} is that of {uids[uid]}"
        uids[uid] = dashboard.file
        yield from _panel_faults(dashboard, provisioned)
        yield from _layout_faults(dashboard)
        yield from _variable_faults(dashboard)


def _provisioned(root: Path) -> dict[str, str]:
    """The type of each datasource by its uid."""
    sources: dict[str, str] = {_OWN_DATASOURCE: "grafana"}
    for path in sorted((root / DATASOURCES).glob("*.yml")):
        document: Any = yaml.safe_load(path.read_text()) or {}
        sources.update({source.get("uid", ""): source.get("type", "") for source in document.get("datasources", ())})
    return sources


def _panel_faults(dashboard: Dashboard, provisioned: Mapping[str, str]) -> Iterator[str]:
    ids: set[int] = set()
    for panel in dashboard.panels:
        place = f"{dashboard.file}: panel {panel['title']!r}"
        if panel["id"] in ids:
            yield f"{place}: its id {panel['id']} is another panel's"
        ids.add(panel["id"])
        letters = [target["refId"] for target in panel.get("targets", ())]
        if len(letters) != len(set(letters)):
            yield f"{place}: two queries have the same refId"
    for place, source in _datasources(dashboard.content, str(dashboard.file)):
        if provisioned.get(source.get("uid", "")) != source.get("type"):
            yield f"{place}: no datasource {source.get('uid')!r} of type {source.get('type')} is provisioned"


def _datasources(value: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, dict):
        name = value.get("title") or value.get("name")
        place = f"{place}: {name!r}" if name and value.get("uid") is None else place
        if isinstance(source := value.get("datasource"), dict):
            yield place, source
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _datasources(inner, place)


def _layout_faults(dashboard: Dashboard) -> Iterator[str]:
    placed = [panel for panel in dashboard.panels if "gridPos" in panel]
    for panel in placed:
        position = panel["gridPos"]
        if position["x"] + position["w"] > _WIDTH:
            yield f"{dashboard.file}: panel {panel['title']!r}: reaches over the right edge"
    for one, other in combinations(placed, 2):
        if _overlap(one["gridPos"], other["gridPos"]):
            yield f"{dashboard.file}: panel {one['title']!r}: lies over {other['title']!r}"


def _overlap(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


def _variable_faults(dashboard: Dashboard) -> Iterator[str]:
    known = set(dashboard.values) | set(GRAFANA_VALUES)
    for variable in dashboard.content["templating"]["list"]:
        if variable["query"]["query"] != variable["definition"]:
            yield f"{dashboard.file}: variable {variable['name']}: its query is not its definition"
    for panel in dashboard.panels:
        texts = [panel["title"], panel.get("description", "")]
        texts += [
            target[key] for target in panel.get("targets", ()) for key in ("expr", "legendFormat") if key in target
        ]
        for name in sorted(set().union(*map(variables, texts)) - known):
            yield f"{dashboard.file}: panel {panel['title']!r}: no variable ${name}"
