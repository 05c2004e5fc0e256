"""New migrations hold no table that lives: no rewrite, no scan, no index build under its lock.

And functions let the release before go on: each text stands in the history by which a release tells an earlier one
from a later one, and none is dropped that it calls.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.contract import ROOT

# The last step of each schema that a release has brought: those before it stay as they are.
_RELEASED = {"registry": 7, "session": 5, "memory": 7, "activity": 2, "gateway": 2}
_EXCEPTIONS = {
    ("activity", "0002_administration"): "a CHECK of a short text is looked at partition by partition, with no rewrite",
}
# What functions*.sql may drop: nothing of the last release calls it, nor a call that began on it.
_DROPPED = {
    "memory": {"memory.list_query", "memory.search_memories", "memory.store_memories", "memory.weigh_nearest"},
}
_BODY = re.compile(r"\$\$.*?\$\$", re.DOTALL)
_COMMENT = re.compile(r"--[^\n]*")
_CREATE_TABLE = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+\.\w+)")
_INDEX = re.compile(
    r"CREATE (?:UNIQUE )?INDEX (?P<concurrently>CONCURRENTLY )?.*? ON (?:ONLY )?(?P<table>\w+\.\w+)", re.DOTALL
)
_ALTER = re.compile(r"ALTER TABLE (?:ONLY )?(?P<table>\w+\.\w+)\s+(?P<actions>.*)", re.DOTALL)
_WRITE = re.compile(r"(?:UPDATE|DELETE FROM) (?:ONLY )?(?P<table>\w+\.\w+)")
_FILL = re.compile(r"INSERT INTO .*?\bFROM (?P<table>\w+\.\w+)", re.DOTALL)
# What an ALTER TABLE does for long under ACCESS EXCLUSIVE.
_LONG = {
    "writes the table anew": re.compile(r"GENERATED ALWAYS AS \(|\bTYPE\b|gen_random_uuid|clock_timestamp|IDENTITY"),
    "reads the whole table": re.compile(r"\bSET NOT NULL\b"),
    "builds an index": re.compile(r"\bADD (?:CONSTRAINT \w+ )?(?:UNIQUE|PRIMARY KEY|EXCLUDE) ?\((?!.*USING INDEX)"),
}
_CHECKED = re.compile(r"\b(?:CHECK|FOREIGN KEY|REFERENCES)\b")


def _statements(text: str) -> Iterator[str]:
    for statement in _COMMENT.sub("", _BODY.sub("$$", text)).split(";"):
        if statement.strip():
            yield statement.strip()


def _faults(text: str, living: set[str]) -> list[str]:
    """Says what of a migration holds a table that lives."""
    is_open = text.startswith("-- no-transaction")
    found = []
    for statement in _statements(text):
        if match := _INDEX.match(statement):
            if match["table"] in living and not match["concurrently"]:
                found.append(f"{match['table']}: builds an index without CONCURRENTLY")
        elif match := _ALTER.match(statement):
            if match["table"] in living:
                found += [f"{match['table']}: {why}" for why in _held(match["actions"], is_open=is_open)]
        elif (match := _WRITE.match(statement) or _FILL.match(statement)) and match["table"] in living:
            found.append(f"{match['table']}: is filled at once, not in batches that commit")
    return found


def _held(actions: str, *, is_open: bool) -> Iterator[str]:
    for action in re.split(r",\s*(?=ADD|ALTER|DROP|VALIDATE|ENABLE|DISABLE)", actions):
        yield from (why for why, pattern in _LONG.items() if pattern.search(action))
        if _CHECKED.search(action) and "NOT VALID" not in action:
            yield "reads the whole table for a constraint that is not NOT VALID"
        if action.startswith("VALIDATE") and not is_open:
            yield "validates a constraint under the locks of a transaction"


def _steps(schema: str) -> list[Path]:
    return sorted((ROOT / "services" / f"minion_{schema}" / "migrations").glob("[0-9]*.up.sql"))


@pytest.mark.parametrize("schema", sorted(_RELEASED))
def test_no_new_migration_holds_a_table_that_lives(schema: str) -> None:
    living: set[str] = set()
    faults = {}
    for path in _steps(schema):
        text, name = path.read_text(), path.name.removesuffix(".up.sql")
        if int(name[:4]) > _RELEASED[schema] and (schema, name) not in _EXCEPTIONS:
            faults[name] = _faults(text, living)
        living |= set(_CREATE_TABLE.findall(text))
    assert living
    assert {name: found for name, found in faults.items() if found} == {}


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX a_b ON x.a (b)",
        "CREATE UNIQUE INDEX a_b\n    ON x.a (b)",
        "ALTER TABLE x.a ADD COLUMN b integer GENERATED ALWAYS AS (1) STORED",
        "ALTER TABLE x.a ALTER COLUMN b TYPE bigint",
        "ALTER TABLE x.a ADD COLUMN b text NOT NULL DEFAULT '' CHECK (b <> 'c')",
        "ALTER TABLE x.a ADD COLUMN c int,\n    ADD CONSTRAINT d CHECK (b <> 'c')",
        "ALTER TABLE x.a ADD CONSTRAINT d FOREIGN KEY (b) REFERENCES x.b",
        "ALTER TABLE x.a ALTER COLUMN b SET NOT NULL",
        "ALTER TABLE x.a ADD CONSTRAINT d UNIQUE (b)",
        "ALTER TABLE x.a VALIDATE CONSTRAINT d",
        "UPDATE x.a SET b = b",
        "INSERT INTO x.b (c) SELECT b FROM x.a",
    ],
)
def test_what_holds_a_table_is_seen(statement: str) -> None:
    assert _faults(f"-- Why.\n{statement};\n", {"x.a"}) != []
    assert _faults(f"-- Why.\n{statement.replace('x.a', 'x.new')};\n", {"x.a"}) == []


@pytest.mark.parametrize(
    "text",
    [
        "ALTER TABLE x.a ADD COLUMN b text NOT NULL DEFAULT '', ADD CONSTRAINT d CHECK (b <> 'c') NOT VALID;",
        "ALTER TABLE x.a ALTER COLUMN b DROP EXPRESSION;",
        "-- no-transaction\nCREATE INDEX CONCURRENTLY a_b ON x.a (b);\nALTER TABLE x.a VALIDATE CONSTRAINT d;",
        "-- no-transaction\nDO $$ BEGIN UPDATE x.a SET b = b; COMMIT; END $$;",
    ],
)
def test_what_holds_no_table_passes(text: str) -> None:
    assert _faults(text, {"x.a"}) == []


@pytest.mark.parametrize("schema", sorted(_RELEASED))
def test_the_history_of_functions_ends_with_their_texts(schema: str) -> None:
    directory = ROOT / "services" / f"minion_{schema}" / "migrations"
    lines = (directory / "functions.history").read_text().splitlines()
    assert len(lines) == len(set(lines)), "a text can't come back: change a comment in it"
    last = dict(line.split() for line in lines)
    own = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.glob("functions*.sql"))
    }
    assert own
    wanted = [f"{name} {checksum}" for name, checksum in own.items() if last.get(name) != checksum]
    assert wanted == [], f"append to {directory / 'functions.history'}:\n" + "\n".join(wanted)


@pytest.mark.parametrize("schema", sorted(_RELEASED))
def test_no_function_of_the_last_release_is_dropped(schema: str) -> None:
    directory = ROOT / "services" / f"minion_{schema}" / "migrations"
    text = "".join(path.read_text() for path in sorted(directory.glob("functions*.sql")))
    dropped = set(re.findall(r"\bDROP (?:FUNCTION|ROUTINE|PROCEDURE) (?:IF EXISTS )?([^\s(]+)", text))
    assert dropped == _DROPPED.get(schema, set()), "its replicas, and calls that have begun, go on for a release"
