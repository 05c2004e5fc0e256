"""Loads other parts' settings; what is wrong with them becomes one line."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from minion_errors import FailedPrecondition
from minion_settings import Fault, Settings, SettingsError

_S = TypeVar("_S", bound=Settings)


def load(kind: type[_S], environ: Mapping[str, str] | None = None, /, **overrides: object) -> _S:
    """Loads settings from the environment; raises FailedPrecondition that lists every fault.

    `overrides` are values by field, which win.
    """
    try:
        return kind.load(environ, **overrides)
    except SettingsError as error:
        raise refused(error.faults) from error


def refused(faults: Sequence[Fault]) -> FailedPrecondition:
    """Gives the error that lists these faults, each once: variables with the same fault share one description."""
    variables: dict[str, dict[str, None]] = {}
    for fault in faults:
        variables.setdefault(fault.description.rstrip("."), {})[fault.variable] = None
    listed = [f"{', '.join(named)} {description}" for description, named in variables.items()]
    return FailedPrecondition(f"The settings are wrong: {'; '.join(listed)}.", reason="SETTINGS_INVALID")
