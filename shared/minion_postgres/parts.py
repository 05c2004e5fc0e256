"""Reads the parts of an SQL snippet that services copy into their schemas."""

from importlib import resources


def part(file: str, name: str, *, package: str = "minion_postgres", **names: str) -> str:
    """Returns the part `name` of a file in a package's `sql/`, with `{placeholders}` filled in."""
    text = resources.files(package).joinpath("sql").joinpath(file).read_text(encoding="utf-8")
    _, mark, rest = text.partition(f"-- part: {name}\n")
    if not mark:
        raise ValueError(f"{file} has no part {name}")
    body = rest.partition("\n-- part: ")[0]
    for placeholder, value in names.items():
        body = body.replace(f"{{{placeholder}}}", value)
    return body.strip() + "\n"
