"""Where a query stands, and what it says once Grafana has filled in its variables."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# As Grafana would for the last hour at a scrape every 15 seconds.
GRAFANA_VALUES = {"__rate_interval": "1m", "__interval": "15s", "__range": "1h"}
_VARIABLE = re.compile(r"\$\{?(\w+)(?::\w+)?\}?")


@dataclass(frozen=True, slots=True)
class Asked:
    """A query as it stands in a file; `where` names the panel or the rule to people."""

    file: Path
    where: str
    expression: str
    # Values of the dashboard's own variables.
    values: Mapping[str, str] = field(default_factory=dict)
    # What it must have for a legend or for an annotation.
    shown_labels: frozenset[str] = frozenset()

    def filled(self, grafana_values: Mapping[str, str] = GRAFANA_VALUES) -> str:
        """The query with its variables replaced. What has no value stays, and fails to parse."""
        values = {**grafana_values, **self.values}
        return _VARIABLE.sub(lambda match: values.get(match[1], match[0]), self.expression)

    @property
    def place(self) -> str:
        """File and place, as faults begin."""
        return f"{self.file}: {self.where}"


def variables(text: str) -> set[str]:
    """The names of Grafana's variables in a text."""
    return set(_VARIABLE.findall(text))
