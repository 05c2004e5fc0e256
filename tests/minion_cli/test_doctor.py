import os
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from minion_cli.__main__ import run
from minion_cli.development.directory import Directory
from minion_cli.doctor import Finding, examine
from minion_postgres import SCHEMAS
from minion_testing.fake_provider import FakeProvider
from minion_testing.postgres import ClonedDatabase, PostgresCluster
from minion_testing.serving import free_ports


def _environ(database: ClonedDatabase, **more: str) -> dict[str, str]:
    environ = {"MINION_DATABASE_URL": database.dsn("registry")}
    for service in SCHEMAS:
        environ[f"MINION_{service.upper()}_OWNER_DATABASE_URL"] = database.dsn(service, "owner")
    return {**environ, **_free_ports(), **more}


def _free_ports() -> dict[str, str]:
    """The documented ports may be somebody's while tests run."""
    return {
        f"MINION_{service.upper()}_{kind}": str(port)
        for service in SCHEMAS
        for kind, port in zip(("PORT", "OPERATIONS_PORT"), free_ports(2), strict=True)
    }


async def _findings(tmp_path: Path, environ: Mapping[str, str]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in await examine(Directory(tmp_path / ".minion"), environ)}


async def test_a_machine_that_is_well(postgres: ClonedDatabase, tmp_path: Path) -> None:
    found = await _findings(tmp_path, _environ(postgres))
    assert {subject: finding.ok for subject, finding in found.items()} == dict.fromkeys(
        ("python", "ports", "postgres", "schemas", "provider", "embeddings"), True
    ), found
    assert "with pgvector" in found["postgres"].text
    assert "stand-in" in found["provider"].text


async def test_schemas_that_are_not_migrated(postgres_cluster: PostgresCluster, tmp_path: Path) -> None:
    bare = await postgres_cluster.clone(migrated=False)
    found = await _findings(tmp_path, _environ(bare))
    assert not found["schemas"].ok
    assert "registry: not applied: 0001_initial, 0002_identity" in found["schemas"].text
    assert found["schemas"].remedy == "Run `minion migrate up`."
    await postgres_cluster.drop(bare)


async def test_a_database_that_is_down_and_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environ = {
            **_free_ports(),
            "MINION_DATABASE_URL": "postgresql://127.0.0.1:1/minion",
            "MINION_MEMORY_PORT": str(port),
        }
        found = await _findings(tmp_path, environ)
    assert not found["postgres"].ok
    assert "127.0.0.1:1" in found["postgres"].text
    assert not found["ports"].ok
    assert f"{port} (memory)" in found["ports"].text
    assert all(finding.remedy for finding in found.values() if not finding.ok)


async def test_a_provider_key_is_tried(tmp_path: Path) -> None:
    async with FakeProvider(api_key="good") as provider:
        environ = {**_free_ports(), "OPENAI_BASE_URL": provider.base_url}
        good = (await _findings(tmp_path, {**environ, "OPENAI_API_KEY": "good"}))["provider"]
        bad = (await _findings(tmp_path, {**environ, "OPENAI_API_KEY": "wrong"}))["provider"]
    assert good.ok
    assert "lists 3 models" in good.text
    assert not bad.ok
    assert "refuses the key" in bad.text
    assert "wrong" not in bad.text
    away = (await _findings(tmp_path, {**environ, "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}))["provider"]
    assert "can't be reached" in away.text


def test_a_fault_makes_the_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MINION_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MINION_DATABASE_URL", "postgresql://127.0.0.1:1/minion")
    assert run(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("FAULT  postgres") for line in lines)
    assert any(line.startswith("ok     python") for line in lines)
    assert any(line.strip().startswith("→ ") for line in lines)


def test_an_untouched_directory_is_well_without_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MINION_DATABASE_URL", "MINION_ADMIN_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in _free_ports().items():
        monkeypatch.setenv(name, value)
    assert run(["doctor"]) == 0, capsys.readouterr().out
    assert "embedded Postgres 18, made at the first start" in capsys.readouterr().out
