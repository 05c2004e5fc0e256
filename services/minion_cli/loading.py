"""Loads other parts' settings; what is wrong with them becomes one line."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from minion_errors import FailedPrecondition
from minion_settings import Fault, Settings, SettingsError

_S = TypeVar("_S", bound=Settings)


def load(kind: type[_S], environ: Mapping[str, str] | None = None) -> _S:
    """Loads settings from the environment; raises FailedPrecondition that lists every fault."""
    try:
        return kind.load(environ)
    except SettingsError as error:
        raise refused(error.faults) from error


def refused(faults: Sequence[Fault]) -> FailedPrecondition:
    """Gives the error that lists these faults, each once."""
    listed = dict.fromkeys(f"{fault.variable} {fault.description.rstrip('.')}" for fault in faults)
    return FailedPrecondition(f"The settings are wrong: {'; '.join(listed)}.", reason="SETTINGS_INVALID")
