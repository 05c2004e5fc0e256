"""The names of span attributes stand in one module, and each of them is used."""

import re
from pathlib import Path

from minion_telemetry import attributes

_ROOT = Path(attributes.__file__).parents[2]
_CODE = {
    path: path.read_text()
    for source in ("services", "shared")
    for path in (_ROOT / source).rglob("*.py")
    if "_pb2" not in path.name and path != Path(attributes.__file__)
}
_NAMES = {name: value for name, value in vars(attributes).items() if name.isupper()}


def test_every_name_is_used() -> None:
    everything = "\n".join(_CODE.values())
    assert len(_NAMES) > 30
    assert [name for name in _NAMES if not re.search(rf"\b{name}\b", everything)] == []


def test_no_name_stands_elsewhere() -> None:
    values = {f'"{value}"' for value in _NAMES.values() if "." in value}
    found = {(path.name, value) for path, text in _CODE.items() for value in values if value in text}
    assert found == set()


def test_the_schema_is_the_one_that_the_names_are_of() -> None:
    assert re.fullmatch(r"https://opentelemetry\.io/schemas/\d+\.\d+\.\d+", attributes.SCHEMA_URL)
    documented = (_ROOT / "docs").rglob("operating*.md")
    assert any(attributes.SCHEMA_URL.rpartition("/")[2] in page.read_text() for page in documented)
