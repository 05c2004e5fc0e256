"""The table of docs/metrics.md."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from minion_postgres import SCHEMAS

from tests.architecture.contract import ROOT

_ROW = re.compile(
    r"^\| `(?P<name>[a-z_:]+)` \| (?P<type>[a-z]+) \|(?P<labels>[^|]*)\| (?P<services>[^|]+) \| [^|]+ \|$"
)
_HEADER = "| metric | type | labels | services | meaning |"


@dataclass(frozen=True)
class Listed:
    """A row: a metric's type, its labels but for `le`, and the services that show it."""

    type: str
    labels: frozenset[str]
    services: frozenset[str]


def listed() -> Mapping[str, Listed]:
    """Reads the table; fails on a row that can't be read."""
    lines = (ROOT / "docs" / "metrics.md").read_text().splitlines()
    start = lines.index(_HEADER) + 2
    rows: dict[str, Listed] = {}
    for line in lines[start : lines.index("", start)]:
        row = _ROW.match(line)
        assert row is not None, f"not a row: {line}"
        services = row["services"].split(", ")
        assert row["name"] not in rows, f"twice: {line}"
        rows[row["name"]] = Listed(
            row["type"],
            frozenset(re.findall(r"`([a-z_]+)`", row["labels"])),
            frozenset(SCHEMAS if services == ["all"] else services),
        )
        assert rows[row["name"]].services <= set(SCHEMAS), line
    return rows
