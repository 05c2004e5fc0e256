"""docs/privileges.md is what a freshly migrated database says, and what it says is little."""

from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from minion_cli.privileges import matrix
from minion_postgres import SCHEMAS, roles
from minion_testing.postgres import ClonedDatabase

from tests.architecture.contract import ROOT

DOCUMENT = ROOT / "docs" / "privileges.md"


async def _said(postgres: ClonedDatabase) -> str:
    connection = await asyncpg.connect(postgres.admin_dsn)
    try:
        return await matrix(connection)
    finally:
        await connection.close()


async def test_the_documented_matrix_is_the_databases(postgres: ClonedDatabase, request: pytest.FixtureRequest) -> None:
    said = await _said(postgres)
    if request.config.getoption("--write-privileges"):
        DOCUMENT.write_text(said)
    assert DOCUMENT.read_text() == said, "the database grants otherwise: look at the difference, then `make privileges`"


async def test_a_grant_more_is_seen(database_factory: Callable[[], Awaitable[ClonedDatabase]]) -> None:
    database = await database_factory()
    before = await _said(database)
    connection = await asyncpg.connect(database.admin_dsn)
    try:
        await connection.execute("GRANT UPDATE (digest) ON registry.api_keys TO minion_registry_app")
        await connection.execute("GRANT SELECT ON session.messages TO PUBLIC")
        await connection.execute("GRANT CREATE ON SCHEMA memory TO minion_gateway_app")
    finally:
        await connection.close()
    more = set((await _said(database)).splitlines()) - set(before.splitlines())
    assert any("`api_keys`" in line and "digest" in line for line in more)
    assert any("`messages`" in line for line in more)
    assert any("`minion_gateway_app`" in line and "CREATE" in line for line in more)


async def test_nobody_but_a_services_own_roles_holds_anything(postgres: ClonedDatabase) -> None:
    part = dict(_parts(await _said(postgres)))
    for schema in SCHEMAS:
        mentioned = {word for word in part[schema].replace("`", " ").split() if word.startswith(("minion_", "PUBLIC"))}
        assert mentioned == {roles(schema).app, roles(schema).owner}


def _parts(said: str) -> list[tuple[str, str]]:
    return [(part.partition("\n")[0], part) for part in said.split("\n## ")]
