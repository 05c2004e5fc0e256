"""The migration runner: numbered SQL up and down for one schema, and its functions.

A folder holds `0001_initial.up.sql` with `0001_initial.down.sql`, and so on without gaps, and files named
`functions*.sql`, whose `CREATE OR REPLACE FUNCTION`s are applied again whenever their text has changed. Which text came
first says `functions.history`: lines of a file's name and the SHA-256 of a text that a release had or has, the oldest
first. So a text that stands there before this release's is an earlier release's, and one that doesn't is a later one's.

Each migration is one transaction with a lock timeout (it gives up and tries again, rather than queueing every reader
behind it) and a statement timeout. A file whose first line is `-- no-transaction` runs statement by statement, each
ending in `;` at the end of a line outside of `$$`: for `CREATE INDEX CONCURRENTLY`, which starts with a
`DROP INDEX CONCURRENTLY IF EXISTS` of its own, because a failed one leaves an invalid index; and for a `DO $$ … $$`
that fills tables in batches and COMMITs each. Runners of the same schema take turns.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.resources.abc import Traversable
from typing import Final

import asyncpg

from minion_postgres.driver import Connection, connect
from minion_postgres.queries import load

_QUERIES = load("minion_postgres", "sql/migrations.sql")
_HISTORY: Final = "functions.history"
_FILE = re.compile(r"(?P<number>\d{4})_(?P<title>[a-z0-9_]+)\.(?P<direction>up|down)\.sql")
# Up to a `;` at the end of a line; what stands between two `$$` is passed over whole.
_STATEMENT = re.compile(r"(?:--[^\n]*|\$\$.*?\$\$|(?!;[ \t]*(?:\n|\Z)).)+", re.DOTALL)
_NO_TRANSACTION: Final = "-- no-transaction"
_LIMITS: Final = "SET LOCAL lock_timeout = '3s'; SET LOCAL statement_timeout = '10min';"
_ATTEMPTS: Final = 10
_PAUSE: Final = 0.2  # seconds between two looks at the lock, and between attempts


class MigrationError(Exception):
    """A migration can't be applied; the message says which and why. Nothing of it stands unless the message says so."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step."""

    number: int
    name: str  # "0001_initial"
    up: str
    down: str

    @property
    def checksum(self) -> bytes:
        """SHA-256 of the way up."""
        return _checksum(self.up)


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """One step, and when it was applied to this database."""

    name: str
    apply_time: datetime | None


@dataclass(frozen=True, slots=True)
class SchemaState:
    """How a schema stands to a release: what of the release's it lacks, and what it has in another form.

    A schema of a later release lacks nothing. Names are `0001_initial` and `functions.sql`.
    """

    latest: str | None
    missing: Sequence[str]
    outdated: Sequence[str]  # functions that were applied as an earlier release has them
    foreign: Sequence[str]  # migrations that were applied with another text

    @property
    def fits(self) -> bool:
        """Whether this release can run against the schema."""
        return not (self.missing or self.outdated or self.foreign)

    def __str__(self) -> str:
        parts = [
            f"{word}: {', '.join(names)}"
            for word, names in (
                ("not applied", self.missing),
                ("applied as an earlier release has it", self.outdated),
                ("applied with another text", self.foreign),
            )
            if names
        ]
        return "; ".join(parts) or "up to date"


class Migrations:
    """The migrations of one schema. Raises MigrationError when the folder is not in order."""

    def __init__(self, schema: str, directory: Traversable) -> None:
        self.schema = schema
        self.steps = _steps(directory)
        self._functions = {
            entry.name: entry.read_text(encoding="utf-8")
            for entry in sorted(directory.iterdir(), key=lambda entry: entry.name)
            if entry.name.startswith("functions") and entry.name.endswith(".sql")
        }
        self._history = _history(directory)

    async def up(self, dsn: str, *, patience: float = 60.0) -> list[str]:
        """Applies what is missing, functions included, as the owner; returns the names of what it applied.

        Waits up to `patience` seconds for another runner. What a later release has brought is left alone: a database
        with migrations of its own, and functions in its form.
        """
        async with self._turn(dsn, patience) as connection:
            await connection.execute(_in(self.schema, _QUERIES.create_table))
            applied = await self._applied(connection)
            names = {step.name for step in self.steps}
            if any(name not in names for name in applied if _FILE.match(f"{name}.up.sql")):
                return []
            stale = self._stale(applied)
            done = []
            for step in self.steps:
                if step.name not in applied:
                    await self._apply(connection, step.name, step.up, step.checksum)
                    done.append(step.name)
                elif applied[step.name] != step.checksum:
                    raise MigrationError(f"{self.schema}/{step.name} was changed after it was applied")
            for name, text in self._functions.items():
                if name not in applied or name in stale:
                    await self._apply(connection, name, text, _checksum(text))
                    done.append(name)
            return done

    async def down(self, dsn: str, steps: int = 1, *, patience: float = 60.0) -> list[str]:
        """Takes back the last `steps` migrations; returns their names, the latest first.

        The schema's functions go too, as far as nothing hangs on them: they belong to the latest version. `up`, of
        this release or the one before, brings its own back.
        """
        async with self._turn(dsn, patience) as connection:
            await connection.execute(_in(self.schema, _QUERIES.create_table))
            applied = await self._applied(connection)
            known = {step.name for step in self.steps}
            newer = sorted(name for name in applied if _FILE.match(f"{name}.up.sql") and name not in known)
            if newer:
                raise MigrationError(f"{self.schema}/{newer[-1]} is of a newer release: take it back with that one")
            undone = [step for step in reversed(self.steps) if step.name in applied][:steps]
            if undone:
                await connection.execute(_in(self.schema, _QUERIES.drop_functions))
            for step in undone:
                await self._apply(connection, step.name, step.down, None)
            return [step.name for step in undone]

    async def status(self, dsn: str) -> list[MigrationStatus]:
        """Lists the steps of this release and those of a newer one that the database has, with when they came."""
        async with self._connected(dsn) as connection:
            times: dict[str, datetime] = {}
            if await connection.fetchval("SELECT to_regclass($1)", f"{self.schema}.schema_migrations") is not None:
                rows = await connection.fetch(applied_query(self.schema))
                times = {row["name"]: row["apply_time"] for row in rows if _FILE.match(f"{row['name']}.up.sql")}
            names = sorted({step.name for step in self.steps} | set(times))
            return [MigrationStatus(name, times.get(name)) for name in names]

    async def state(self, dsn: str) -> SchemaState:
        """Says how the schema of a database stands to this release; any role that may read it can ask."""
        async with self._connected(dsn) as connection:
            try:
                return self.compare(await self._applied(connection))
            except asyncpg.UndefinedTableError:
                return self.compare({})

    def compare(self, applied: Mapping[str, bytes]) -> SchemaState:
        """Says how what was applied, by name with its checksum, stands to this release."""
        numbered = sorted(name for name in applied if _FILE.match(f"{name}.up.sql"))
        known = {step.name for step in self.steps}
        is_later = any(name not in known for name in numbered)
        missing = [step.name for step in self.steps if step.name not in applied]
        return SchemaState(
            latest=numbered[-1] if numbered else None,
            missing=[*missing, *(name for name in self._functions if name not in applied and not is_later)],
            outdated=[] if is_later else self._stale(applied),
            foreign=[step.name for step in self.steps if applied.get(step.name, step.checksum) != step.checksum],
        )

    def _stale(self, applied: Mapping[str, bytes]) -> list[str]:
        """Lists the functions that were applied in a form which this release's follows."""
        # A later release has the migrations of this one. What stands in no history is no release's, but being written.
        is_earlier = any(step.name not in applied for step in self.steps)
        stale = []
        for name, text in self._functions.items():
            own, history = _checksum(text), self._history.get(name, ())
            there = applied.get(name, own)
            if there != own and (is_earlier or own not in history or there in history[: history.index(own)]):
                stale.append(name)
        return stale

    async def _applied(self, connection: Connection) -> dict[str, bytes]:
        rows = await connection.fetch(applied_query(self.schema))
        return {row["name"]: row["checksum"] for row in rows}

    async def _apply(self, connection: Connection, name: str, text: str, checksum: bytes | None) -> None:
        """Runs a script and notes it as applied (or, with no checksum, as taken back)."""
        try:
            if text.lstrip().startswith(_NO_TRANSACTION):
                for statement in _STATEMENT.findall(text):
                    if _has_sql(statement):
                        await connection.execute(statement)
                await self._note(connection, name, checksum)
            else:
                await self._apply_in_transaction(connection, name, text, checksum)
        except asyncpg.PostgresError as error:
            where = f" at character {error.position}" if getattr(error, "position", None) else ""
            raise MigrationError(f"{self.schema}/{name} failed{where}: {error}") from error

    async def _apply_in_transaction(self, connection: Connection, name: str, text: str, checksum: bytes | None) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with connection.transaction():
                    await connection.execute(_LIMITS)
                    await connection.execute(text)
                    await self._note(connection, name, checksum)
                return
            except asyncpg.LockNotAvailableError:
                if attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(_PAUSE * attempt)

    async def _note(self, connection: Connection, name: str, checksum: bytes | None) -> None:
        if checksum is None:
            await connection.execute(_in(self.schema, _QUERIES.note_taken_back), name)
        else:
            await connection.execute(_in(self.schema, _QUERIES.note_applied), name, checksum)

    @asynccontextmanager
    async def _turn(self, dsn: str, patience: float) -> AsyncIterator[Connection]:
        """Holds the schema's lock. It is polled: a runner that waits inside the server holds a snapshot, and
        CREATE INDEX CONCURRENTLY of the one before would wait for that for ever.
        """
        key = int.from_bytes(_checksum(f"minion migrations {self.schema}")[:8], "big", signed=True)
        deadline = time.monotonic() + patience
        async with self._connected(dsn) as connection:
            while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", key):
                if time.monotonic() > deadline:
                    raise MigrationError(f"another runner is still at work on schema {self.schema}")
                await asyncio.sleep(_PAUSE)
            yield connection

    @asynccontextmanager
    async def _connected(self, dsn: str) -> AsyncIterator[Connection]:
        connection = await connect(dsn, f"minion-migrations-{self.schema}")
        try:
            yield connection
        finally:
            await connection.close(timeout=5)


def applied_query(schema: str) -> str:
    """The query for what was applied to a schema: rows of name, checksum and apply_time."""
    return _in(schema, _QUERIES.list_applied)


def _steps(directory: Traversable) -> Sequence[Migration]:
    texts: dict[int, dict[str, str]] = {}
    names: dict[int, str] = {}
    for entry in directory.iterdir():
        match = _FILE.fullmatch(entry.name)
        if match is None:
            if entry.name.endswith(".sql") and not entry.name.startswith("functions"):
                raise MigrationError(
                    f"{entry.name} is neither NNNN_title.up.sql, NNNN_title.down.sql nor functions*.sql"
                )
            continue
        number, name = int(match["number"]), f"{match['number']}_{match['title']}"
        if names.setdefault(number, name) != name:
            raise MigrationError(f"{names[number]} and {name} have the same number")
        texts.setdefault(number, {})[match["direction"]] = entry.read_text(encoding="utf-8")
    if sorted(texts) != list(range(1, len(texts) + 1)):
        raise MigrationError(f"the numbers of the migrations have a gap: {sorted(texts)}")
    for number, directions in texts.items():
        if set(directions) != {"up", "down"}:
            raise MigrationError(f"{names[number]} needs a way up and a way down")
    return [Migration(number, names[number], texts[number]["up"], texts[number]["down"]) for number in sorted(texts)]


def _history(directory: Traversable) -> Mapping[str, Sequence[bytes]]:
    """The checksums of each file of functions that releases had, the oldest first; none where there is no such file."""
    history = directory / _HISTORY
    found: dict[str, list[bytes]] = {}
    for line in history.read_text(encoding="utf-8").splitlines() if history.is_file() else ():
        try:
            name, checksum = line.split()
            found.setdefault(name, []).append(bytes.fromhex(checksum))
        except ValueError:
            raise MigrationError(f"{_HISTORY} has a line that is no file's name and checksum: {line!r}") from None
    return found


def _in(schema: str, sql: str) -> str:
    return sql.replace("{schema}", schema)


def _has_sql(statement: str) -> bool:
    return any(line.strip() and not line.strip().startswith("--") for line in statement.splitlines())


def _checksum(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
