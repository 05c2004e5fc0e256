"""Where in a file something stands, for the messages of checks."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml


@dataclass(frozen=True, slots=True)
class Source:
    """A file of YAML or JSON; `file` is relative to the repository."""

    file: Path
    text: str
    content: Any

    @classmethod
    def read(cls, root: Path, file: Path) -> Self:
        """Reads the file. Raises FileNotFoundError, and ValueError, which names it, where it is neither."""
        text = (root / file).read_text()
        try:
            return cls(file, text, yaml.safe_load(text) or {})
        except yaml.YAMLError as fault:
            raise ValueError(f"{file}: {fault}") from fault

    def at(self, *texts: object) -> str:
        """File and line of the last of these texts, each looked for behind the one before it."""
        return self._from(0, texts)

    def of(self, name: str, *texts: object) -> str:
        """The same within what compose calls so, or where it is merged from."""
        return self._from(self.text.find(f"\n  {name}:\n") + 1, texts)

    def _from(self, position: int, texts: Iterable[object]) -> str:
        for text in texts:
            behind = self.text.find(str(text), position)
            anywhere = behind if behind >= 0 else self.text.find(str(text))
            position = anywhere if anywhere >= 0 else position
        return f"{self.file}:{self.text.count(chr(10), 0, position) + 1}"


def strings(value: Any) -> Iterator[str]:
    """Yields all texts in a document, keys left out."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(inner)


def hint(name: str, known: Iterable[str]) -> str:
    """Says which name was likely meant; empty where none is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f" (meant {nearest[0]}?)" if nearest else ""
