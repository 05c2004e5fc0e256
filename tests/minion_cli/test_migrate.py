from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio
from minion_cli.__main__ import run
from minion_cli.development import ports
from minion_cli.development.directory import Directory
from minion_cli.development.launch import launched
from minion_errors import FailedPrecondition
from minion_postgres import SCHEMAS, dsn
from minion_testing.postgres import ClonedDatabase, PostgresCluster


@pytest_asyncio.fixture(loop_scope="session")
async def bare(postgres_cluster: PostgresCluster) -> AsyncIterator[ClonedDatabase]:
    """A database with roles and schemas and no tables."""
    database = await postgres_cluster.clone(migrated=False)
    yield database
    await postgres_cluster.drop(database)


def test_up_status_down_and_up_again(
    bare: ClonedDatabase, point_at: Callable[[ClonedDatabase], None], capsys: pytest.CaptureFixture[str]
) -> None:
    point_at(bare)
    assert run(["migrate", "status"]) == 0
    assert capsys.readouterr().out.count("pending") >= len(SCHEMAS)

    assert run(["migrate", "--bootstrap"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"bootstrapped: {', '.join(SCHEMAS)}"
    assert [line.split()[0] for line in shown[1:]] == list(SCHEMAS)
    assert all("applied: 0001_" in line for line in shown[1:])

    assert run(["migrate"]) == 0
    assert capsys.readouterr().out.count("up to date") == len(SCHEMAS)
    assert run(["migrate", "status"]) == 0
    assert "pending" not in capsys.readouterr().out

    assert run(["migrate", "down", "--service", "session"]) == 0
    assert capsys.readouterr().out.startswith("session   taken back: 0")
    assert run(["migrate", "up", "--service", "session"]) == 0
    assert "applied: 0" in capsys.readouterr().out


def test_bootstrap_needs_an_administrator(
    bare: ClonedDatabase,
    point_at: Callable[[ClonedDatabase], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    point_at(bare)
    monkeypatch.delenv("MINION_ADMIN_DATABASE_URL")
    assert run(["migrate", "--bootstrap"]) == 2
    assert "MINION_ADMIN_DATABASE_URL" in capsys.readouterr().err
    monkeypatch.setenv("MINION_ADMIN_DATABASE_URL", bare.dsn("session"))
    assert run(["migrate", "--bootstrap"]) == 1
    assert capsys.readouterr().err.startswith("error: MIGRATION_REFUSED: minion_session_app at ")


def test_the_administrators_password_may_stand_apart(
    bare: ClonedDatabase,
    point_at: Callable[[ClonedDatabase], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    point_at(bare)
    password = dsn.parse(bare.admin_dsn).password
    assert password is not None
    without = bare.admin_dsn.replace(f":{quote(password, safe='')}@", "@")
    assert dsn.parse(without).password is None
    monkeypatch.setenv("MINION_ADMIN_DATABASE_URL", without)
    monkeypatch.setenv("MINION_ADMIN_DATABASE_PASSWORD", "not it")
    assert run(["migrate", "--bootstrap"]) == 1
    assert "not it" not in capsys.readouterr().err
    monkeypatch.setenv("MINION_ADMIN_DATABASE_PASSWORD", password)
    assert run(["migrate", "--bootstrap"]) == 0


def test_without_a_database_every_missing_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MINION_DATABASE_URL", raising=False)
    assert run(["migrate"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: SETTINGS_INVALID: ")
    assert len(told.splitlines()) == 1
    assert all(f"MINION_{service.upper()}_DATABASE_URL" in told for service in SCHEMAS)
    assert told.count("is required") == 1


@pytest.mark.parametrize("variable", ["MINION_DATABASE_URL", "MINION_ADMIN_DATABASE_URL"])
@pytest.mark.parametrize(("command", "code"), [("migrate --bootstrap", 2), ("doctor", 1)])
def test_what_is_no_database_url_is_told_by_the_name_of_its_variable(
    command: str,
    code: int,
    variable: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINION_DATABASE_URL", "postgresql://127.0.0.1:1/minion")
    monkeypatch.setenv("MINION_ADMIN_DATABASE_URL", "postgresql://127.0.0.1:1/minion")
    monkeypatch.setenv(variable, "db.example.com")
    assert run(command.split()) == code
    captured = capsys.readouterr()
    assert f"{variable} must look like postgresql://host:5432/database" in captured.out + captured.err


@pytest.mark.parametrize("variable", ["MINION_DATABASE_URL", "MINION_ADMIN_DATABASE_URL"])
async def test_a_stack_tells_what_is_no_database_url_too(variable: str, tmp_path: Path) -> None:
    environ = {"MINION_DATABASE_URL": "postgresql://127.0.0.1:1/minion", variable: "db.example.com"}
    with pytest.raises(FailedPrecondition, match=f"{variable} must look like postgresql://"):
        async with launched(Directory(tmp_path / "stack"), ports=ports.free(), environ=environ):
            pytest.fail("launched nothing")


def test_all_that_is_wrong_with_migrations_settings_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINION_DATABASE_URL", "db.example.com")
    monkeypatch.setenv("MINION_POOL_MIN_SIZE", "9")
    monkeypatch.setenv("MINION_POOL_MAX_SIZE", "8")
    monkeypatch.setenv("MINION_SESSION_STATEMENT_SECONDS", "inf")
    monkeypatch.delenv("MINION_ADMIN_DATABASE_URL", raising=False)
    assert run(["migrate", "--bootstrap"]) == 2
    told = capsys.readouterr().err
    for fault in (
        "MINION_DATABASE_URL must look like postgresql://",
        "MINION_POOL_MIN_SIZE is 9, and MINION_POOL_MAX_SIZE is 8",
        "MINION_SESSION_STATEMENT_SECONDS Input should be a finite number",
        "MINION_ADMIN_DATABASE_URL is required for --bootstrap",
    ):
        assert told.count(fault) == 1


def test_a_database_that_is_down_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINION_DATABASE_URL", "postgresql://127.0.0.1:1/minion")
    assert run(["migrate"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: DATABASE_UNAVAILABLE: ")
    assert "127.0.0.1:1" in told
    assert len(told.splitlines()) == 1
