"""The collector that `convert.py` modules check a request's shape with."""

from collections.abc import Collection
from typing import NoReturn
from uuid import UUID

from minion_errors.tree import InvalidArgument, Violation

# Whoever has that many faults mends them first; a request of 4 MiB can have two million, each of which costs time.
_MOST_FAULTS = 100


class Violations:
    """Collects every fault of a request, then raises them together.

    Each check returns the value it was given (or a harmless stand-in of the right type), so that a conversion reads
    straight through; nothing converted may be used before `raise_if_any`. A request with 100 faults, or with more than
    may be looked at, is refused at once, with the faults found until then.
    """

    def __init__(self) -> None:
        self._found: list[Violation] = []

    def add(self, field: str, description: str) -> None:
        """Records one fault at the path `field`."""
        self._found.append(Violation(field, description))
        if len(self._found) >= _MOST_FAULTS:
            raise self._refusal()

    def stop(self, field: str, description: str) -> NoReturn:
        """Raises a fault that bars the way to what comes after it, with all found before."""
        self._found.append(Violation(field, description))
        raise self._refusal()

    def require(self, field: str, value: str) -> str:
        """Records a fault when the text is empty."""
        if not value:
            self.add(field, "is required")
        return value

    def length(self, field: str, value: str, *, maximum: int, minimum: int = 0) -> str:
        """Records a fault when the text has fewer or more characters than allowed, or U+0000 (Postgres refuses it)."""
        if not minimum <= len(value) <= maximum:
            self.add(field, f"must have {minimum} to {maximum} characters, has {len(value)}")
        if "\x00" in value:
            self.add(field, "must not hold the character U+0000")
        return value

    def between(self, field: str, value: float, *, minimum: float, maximum: float) -> None:
        """Records a fault when the number is out of its range (or NaN)."""
        if not minimum <= value <= maximum:
            self.add(field, f"must be between {minimum} and {maximum}, is {value}")

    def count(self, field: str, values: Collection[object], *, maximum: int, minimum: int = 0) -> None:
        """Records a fault when a repeated field has too few items; too many are not looked at but raised at once."""
        description = f"must have {minimum} to {maximum} items, has {len(values)}"
        if len(values) > maximum:
            self.stop(field, description)
        if len(values) < minimum:
            self.add(field, description)

    def identifier(self, field: str, value: str) -> UUID:
        """Parses a required UUID; anything else is a fault."""
        if not value:
            self.add(field, "is required")
            return UUID(int=0)
        return self._uuid(field, value) or UUID(int=0)

    def optional_identifier(self, field: str, value: str) -> UUID | None:
        """Parses a UUID where one is given; empty is None."""
        return self._uuid(field, value) if value else None

    def raise_if_any(self) -> None:
        """Raises InvalidArgument with all faults found, if any was."""
        if self._found:
            raise self._refusal()

    def _refusal(self) -> InvalidArgument:
        listed = "; ".join(f"{fault.field} {fault.description}" for fault in self._found[:5])
        more = f" (and {len(self._found) - 5} more)" if len(self._found) > 5 else ""
        return InvalidArgument(f"The request is malformed: {listed}{more}.", violations=self._found)

    def _uuid(self, field: str, value: str) -> UUID | None:
        # UUID() also takes braces, "urn:uuid:" and missing hyphens; the contract takes the canonical form alone.
        try:
            parsed = UUID(value)
        except ValueError:
            parsed = None
        if parsed is None or str(parsed) != value.lower():
            self.add(field, "must be a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")
            return None
        return parsed
