"""One real Postgres for a test session, and a fresh database by cloning a template.

`cluster()` serves benchmarks and processes too; the fixtures are for pytest.
"""

import asyncio
import importlib.util
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final, Literal
from uuid import uuid4

import asyncpg
import pytest_asyncio
from minion_postgres import (
    SCHEMAS,
    Database,
    DatabaseSettings,
    EmbeddedPostgres,
    Migrations,
    ServiceAccess,
    bootstrap,
    roles,
)
from minion_telemetry import Telemetry
from minion_telemetry.settings import TelemetrySettings
from pydantic import Field, SecretStr

_PASSWORD: Final = "for tests alone"  # the cluster listens on the loopback interface and dies with the tests
_QUICK: Final = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    # It would come at a moment of its own: its transactions hold every change feed of the server back, and what it
    # finds out about a table changes plans and estimates. Tests that need that say ANALYZE or VACUUM.
    "autovacuum": "off",
}

# A busy machine stops a test's process for more than a second now and then, which is no finding; nor is it one when a
# connection or a statement then takes its time. Tests of these limits set their own.
TRANSACTION_IDLE_SECONDS: Final = 30.0
PATIENCE_SECONDS: Final = 60.0
# It takes a second or two where there is nobody else; two workers start theirs at once.
_START_SECONDS: Final = 240.0
# What those have who are to leave a database that is cloned or dropped.
_LEAVING_SECONDS: Final = 60.0

Role = Literal["app", "owner"]


class ServiceDatabaseSettings(DatabaseSettings, TelemetrySettings):
    """Settings of a service's database in tests."""

    transaction_idle_seconds: float = Field(
        default=TRANSACTION_IDLE_SECONDS, description="Seconds that a transaction may wait for the test."
    )
    pool_acquire_seconds: float = Field(
        default=PATIENCE_SECONDS, description="Seconds that a test waits for a connection."
    )
    statement_seconds: float = Field(default=PATIENCE_SECONDS, description="Seconds that a test's statement may run.")


@dataclass(frozen=True, slots=True)
class ClonedDatabase:
    """A database of one test's or module's own, with all five schemas and their roles."""

    name: str
    postgres: EmbeddedPostgres

    @property
    def admin_dsn(self) -> str:
        """The superuser's connection string, for looking behind the curtain."""
        return self.postgres.admin_dsn(self.name)

    def dsn(self, service: str, role: Role = "app") -> str:
        """The connection string of a service's role."""
        own = roles(service)
        return self.postgres.dsn(own.app if role == "app" else own.owner, _PASSWORD, self.name)

    async def connect(
        self,
        service: str,
        role: Role = "app",
        *,
        telemetry: Telemetry | None = None,
        dsn: str | None = None,
        measured: bool = True,
        **overrides: object,
    ) -> Database:
        """Opens a pool as a service's role; `overrides` are fields of DatabaseSettings. Close it."""
        dsn = dsn or self.dsn(service, role)
        values: dict[str, object] = {"database_url": SecretStr(dsn), "pool_min_size": 1, "pool_max_size": 10}
        settings = ServiceDatabaseSettings.load({}, **{**values, **overrides})
        return await Database.connect(
            dsn,
            schema=service,
            settings=settings,
            telemetry=telemetry or Telemetry.start(service, settings),
            measured=measured,
        )


class PostgresCluster:
    """The session's server with two templates: `bare` (roles and schemas) and `migrated` (all services' tables)."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self.postgres = postgres
        self._made: set[str] = set()
        self._making = asyncio.Lock()

    async def clone(self, *, migrated: bool = True) -> ClonedDatabase:
        """Makes a fresh database from a template."""
        async with self._making:
            # The first use makes the template; afterwards nobody connects to it, which cloning demands.
            template = "migrated" if migrated else "bare"
            if template not in self._made:
                await self._make_template(template)
                self._made.add(template)
        name = f"test_{uuid4().hex[:12]}"
        await self._administer(
            f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy",
            f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC",
        )
        return ClonedDatabase(name, self.postgres)

    async def drop(self, database: ClonedDatabase) -> None:
        """Removes a database, whoever is still connected."""
        await self._administer(f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)")

    async def _make_template(self, template: str) -> None:
        await self._administer(f"CREATE DATABASE {template}")
        database = ClonedDatabase(template, self.postgres)
        await bootstrap(
            database.admin_dsn,
            [ServiceAccess(schema, database.dsn(schema, "owner"), database.dsn(schema)) for schema in SCHEMAS],
        )
        if template == "migrated":
            for schema in SCHEMAS:
                if importlib.util.find_spec(f"minion_{schema}") is None:
                    continue
                directory = resources.files(f"minion_{schema}") / "migrations"
                if directory.is_dir():
                    await Migrations(schema, directory).up(database.dsn(schema, "owner"))

    async def _administer(self, *statements: str) -> None:
        connection = await asyncpg.connect(self.postgres.admin_dsn("postgres"))
        try:
            for statement in statements:
                await _execute(connection, statement)
        finally:
            await connection.close()


async def _execute(connection: asyncpg.Connection, statement: str) -> None:
    """Executes a statement that needs a database for itself, once whoever is told to leave it has done so.

    Postgres tells them, autovacuum's workers too, and waits for 5 seconds: less than a busy machine may take to run a
    process that is to end.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + _LEAVING_SECONDS
    while True:
        try:
            await connection.execute(statement)
        except asyncpg.ObjectInUseError:
            if clock() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            return


@asynccontextmanager
async def cluster(directory: Path | None = None, *, durable: bool = False) -> AsyncIterator[PostgresCluster]:
    """Runs a server in a folder (a temporary one by default); `durable` keeps fsync on, as benchmarks must."""
    with tempfile.TemporaryDirectory(prefix="minion-test-") as temporary:
        place = directory or Path(temporary)
        # The server's own user must get there; it owns nothing but the cluster's folder in it.
        place.chmod(0o755)
        postgres = EmbeddedPostgres(place / "postgres", settings={"shared_buffers": "1GB"} if durable else _QUICK)
        await asyncio.to_thread(postgres.start, timeout=_START_SECONDS)
        try:
            yield PostgresCluster(postgres)
        finally:
            await asyncio.to_thread(postgres.stop)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_cluster() -> AsyncIterator[PostgresCluster]:
    """The session's server."""
    async with cluster() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def postgres(postgres_cluster: PostgresCluster) -> AsyncIterator[ClonedDatabase]:
    """A module's own database with every service's tables."""
    database = await postgres_cluster.clone()
    yield database
    await postgres_cluster.drop(database)


@pytest_asyncio.fixture(loop_scope="session")
async def database_factory(
    postgres_cluster: PostgresCluster,
) -> AsyncIterator[Callable[..., Awaitable[ClonedDatabase]]]:
    """Makes fresh databases in a test: `await database_factory()`, `await database_factory(migrated=False)`."""
    made: list[ClonedDatabase] = []

    async def make(*, migrated: bool = True) -> ClonedDatabase:
        made.append(await postgres_cluster.clone(migrated=migrated))
        return made[-1]

    yield make
    for database in made:
        await postgres_cluster.drop(database)


__all__ = ["ClonedDatabase", "PostgresCluster", "cluster", "database_factory", "postgres", "postgres_cluster"]
