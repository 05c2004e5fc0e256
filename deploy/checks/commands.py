"""Checks command lines of our image against the command itself: its name, its subcommands, their options."""

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer
from minion_cli.application import command
from typer.exceptions import TyperException

from deploy.checks.places import hint


def script_faults(root: Path, name: str) -> Iterator[str]:
    """Yields what is wrong with the name of a program of our image."""
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    if name not in scripts:
        yield f"the image has no program {name}{hint(name, scripts)}"


def argument_faults(arguments: Sequence[str]) -> Iterator[str]:
    """Yields what `minion` would refuse of these arguments, which it only reads."""
    group = command()
    try:
        name, found, rest = group.resolve_command(typer.Context(group), list(arguments))
        if found is not None:
            # MINION_SERVICE says in a container which service is meant.
            found.make_context(name, rest, default_map={"service": "gateway"})
    except TyperException as refused:
        yield f"`minion {' '.join(arguments)}` is refused: {refused}"
