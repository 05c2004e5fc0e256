"""What `minion embeddings install` does at the database itself."""

from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest
import pytest_asyncio
from minion_cli.__main__ import run
from minion_testing.postgres import ClonedDatabase, PostgresCluster


@pytest_asyncio.fixture(loop_scope="session")
async def registered(postgres_cluster: PostgresCluster) -> AsyncIterator[ClonedDatabase]:
    """A database with a model that has no index yet."""
    database = await postgres_cluster.clone()
    connection = await asyncpg.connect(database.dsn("memory"))
    await connection.fetch("SELECT memory.register_embedding_model('acme/by-hand', 3)")
    await connection.close()
    yield database
    await postgres_cluster.drop(database)


def test_registered_models_are_installed_once(
    registered: ClonedDatabase, point_at: Callable[[ClonedDatabase], None], capsys: pytest.CaptureFixture[str]
) -> None:
    point_at(registered)
    assert run(["embeddings", "install"]) == 0
    assert capsys.readouterr().out == "installed: acme/by-hand\n"
    assert run(["embeddings", "install"]) == 0
    assert capsys.readouterr().out == "nothing to install\n"


def test_a_database_that_is_down_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINION_DATABASE_URL", "postgresql://127.0.0.1:1/minion")
    assert run(["embeddings", "install"]) == 1
    assert capsys.readouterr().err.startswith("error: DATABASE_UNAVAILABLE: ")
