"""The registry's migrations go both ways."""

from collections.abc import Awaitable, Callable
from importlib import resources

from minion_postgres import Migrations
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import serve
from minion_testing.tenants import new_tenant

LEFT = (
    "SELECT relname::text AS name FROM pg_class WHERE relnamespace = 'registry'::regnamespace AND relkind IN ('r', 'S')"
    " UNION SELECT proname::text FROM pg_proc WHERE pronamespace = 'registry'::regnamespace"
)


async def test_down_leaves_nothing_and_up_brings_it_back(
    database_factory: Callable[[], Awaitable[ClonedDatabase]],
) -> None:
    database = await database_factory()
    migrations = Migrations("registry", resources.files("minion_registry") / "migrations")
    owner = database.dsn("registry", "owner")
    assert await migrations.up(owner) == []
    names = [step.name for step in migrations.steps]
    assert await migrations.down(owner, len(names)) == names[::-1]
    async with await database.connect("registry", "owner") as connection:
        assert {row["name"] for row in await connection.fetch(LEFT)} == {"schema_migrations"}
    up = await migrations.up(owner)
    assert up[: len(names)] == names
    assert "functions.sql" in up[len(names) :]
    async with serve("registry", database) as registry:
        await new_tenant(registry)
