"""What is wrong with the settings, said all at once."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One setting that is missing or wrong; `variable` is the environment variable to change."""

    variable: str
    description: str


class SettingsError(Exception):
    """The settings can't be used; the message lists every fault, a line each."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        lines = [f"  {fault.variable}: {fault.description}" for fault in self.faults]
        count = "1 fault" if len(lines) == 1 else f"{len(lines)} faults"
        super().__init__("\n".join([f"The settings have {count}:", *lines]))
