"""The house keeps its shape: names, sizes, migrations in pairs, dependencies without addresses."""

import re
import tomllib
from pathlib import Path

import pytest
from minion_audit import outbox
from minion_postgres import feed, idempotency
from minion_postgres.roles import SCHEMAS

from tests.architecture.contract import ROOT

_BANNED = {"utils", "helpers", "common", "misc", "base", "core", "manager"}
_MOST_LINES = 450


def _modules() -> list[Path]:
    return [
        path
        for source in ("services", "shared")
        for path in sorted((ROOT / source).rglob("*.py"))
        if path.relative_to(ROOT / source).parts[0] != "minion"
    ]


def test_no_module_is_named_for_nothing() -> None:
    assert [str(path) for path in _modules() if path.stem in _BANNED or re.search(r"_v\d+$|\d$", path.stem)] == []


def test_no_module_is_crowded() -> None:
    crowded = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in _modules()}
    assert {path: lines for path, lines in crowded.items() if lines > _MOST_LINES} == {}


def test_every_migration_goes_both_ways() -> None:
    directories = sorted((ROOT / "services").glob("*/migrations"))
    assert len(directories) == 5
    for directory in directories:
        ups = {path.name.removesuffix(".up.sql") for path in directory.glob("*.up.sql")}
        downs = {path.name.removesuffix(".down.sql") for path in directory.glob("*.down.sql")}
        assert ups
        assert ups == downs


# What each schema has by copy; the gateway's runs and the activity's rows are their own keys.
_SHARED = {
    "registry": (idempotency, feed, outbox),
    "session": (idempotency, feed),
    "memory": (idempotency,),
    "gateway": (outbox,),
}


def test_what_schemas_share_is_copied_as_it_is() -> None:
    for schema in SCHEMAS:
        directory = ROOT / "services" / f"minion_{schema}" / "migrations"
        ups = "".join(path.read_text() for path in sorted(directory.glob("*.up.sql")))
        functions = "".join(path.read_text() for path in sorted(directory.glob("functions*.sql")))
        has = tuple(
            shared
            for shared, mark in (
                (idempotency, f"{schema}.idempotency_keys"),
                (feed, "xid8"),
                (outbox, f"{schema}.outbox"),
            )
            if mark in ups + functions
        )
        assert has == _SHARED.get(schema, ()), schema
        for shared in has:
            assert shared.table_sql(schema) in ups, (schema, shared.__name__)
            assert shared.functions_sql(schema) in functions, (schema, shared.__name__)


def test_every_package_is_in_the_wheel_and_typed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    found = {
        f"{source}/{path.name}"
        for source in ("services", "shared")
        for path in (ROOT / source).iterdir()
        if path.is_dir() and path.name.startswith("minion")
    }
    assert listed == found
    untyped = [
        package for package in found if package != "shared/minion" and not (ROOT / package / "py.typed").exists()
    ]
    assert untyped == []


@pytest.mark.parametrize(
    "name", ["requirements.lock", "requirements-model.lock", "requirements-runtime.lock", "requirements-build.lock"]
)
def test_the_lock_is_hashed_and_names_no_index(name: str) -> None:
    text = (ROOT / name).read_text()
    pinned = re.findall(r"^[a-zA-Z0-9_.-]+==", text, re.MULTILINE)
    assert pinned
    assert text.count("--hash=sha256:") >= len(pinned)
    assert "://" not in text
    assert "index" not in text.replace("importlib", "")


def test_every_direct_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    names = {re.split(r"[\[<>=;!~ ]", line)[0] for line in wanted} - {"minion-agents"}
    reasons = (ROOT / "docs" / "dependencies.md").read_text()
    assert sorted(name for name in names if f"`{name}`" not in reasons) == []
