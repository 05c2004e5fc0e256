"""Finds variables that were meant to be settings and set nothing.

Services share an environment, so a variable that one doesn't know may be another's. Two kinds can be told all the same:
one under this service's own name, and one that is nearly the name of a setting.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from minion_settings.settings import Settings
from minion_settings.variables import variables

# Names of a dozen characters and more in which one is wrong, missing, doubled or swapped; no two settings are as near.
_ALIKE = 0.93


@dataclass(frozen=True, slots=True)
class Unknown:
    """A variable that sets nothing; `nearest` is the setting that was likely meant, empty where none is near."""

    variable: str
    nearest: str


def unknown(settings: type[Settings], environ: Mapping[str, str]) -> Iterator[Unknown]:
    """Yields the variables that were likely meant for this service and set nothing."""
    known = {variable for field in settings.model_fields for variable in variables(settings, field)}
    own = f"MINION_{settings.service.upper()}_"
    # Where it answers is read by those who call it.
    known.add(f"{own}ADDRESS")
    for variable in sorted(environ.keys() - known):
        if not variable.startswith("MINION_"):
            continue
        nearest = get_close_matches(variable, known, n=1, cutoff=_ALIKE)
        if nearest or variable.startswith(own):
            yield Unknown(variable, nearest[0] if nearest else "")
