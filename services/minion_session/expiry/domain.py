"""A clean-up: what became of sessions whose time is up."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cleaned:
    """How many sessions were told to have expired, and how many that expired long ago were deleted."""

    expired: int = 0
    deleted: int = 0

    def __add__(self, other: "Cleaned") -> "Cleaned":
        return Cleaned(self.expired + other.expired, self.deleted + other.deleted)
