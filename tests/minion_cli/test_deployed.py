"""What a container is made to do: `serve`, `health` and `secrets`."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from minion_cli.__main__ import run
from minion_cli.deployed import operations_address
from minion_cli.development.ports import DOCUMENTED
from minion_cli.secrets import made
from minion_postgres import SCHEMAS
from minion_telemetry import OperationsServer
from prometheus_client import CollectorRegistry

# A machine may stand still for longer than a health check waits by itself.
PATIENT = ("--seconds", "60")


class Readiness:
    """What the operations port is told."""

    def __init__(self) -> None:
        self.ready = True


@pytest.fixture
def readiness() -> Readiness:
    return Readiness()


@pytest.fixture
def operations(readiness: Readiness, monkeypatch: pytest.MonkeyPatch) -> Iterator[OperationsServer]:
    """A running operations port, which the environment names as the session service's."""
    for variable in ("MINION_SERVICE", "MINION_OPERATIONS_PORT", "MINION_OPERATIONS_HOST"):
        monkeypatch.delenv(variable, raising=False)
    server = OperationsServer("127.0.0.1", 0, CollectorRegistry(), lambda: readiness.ready)
    monkeypatch.setenv("MINION_SESSION_OPERATIONS_PORT", str(server.start()))
    monkeypatch.setenv("MINION_SESSION_OPERATIONS_HOST", "0.0.0.0")  # noqa: S104 - as in a container
    yield server
    server.stop()


def test_health_is_what_the_service_says(
    operations: OperationsServer, readiness: Readiness, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["health", "session", *PATIENT]) == 0
    assert capsys.readouterr().out == "ready\n"
    readiness.ready = False
    assert run(["health", "session", *PATIENT]) == 1
    assert capsys.readouterr().err.startswith("error: SERVICE_NOT_READY: The session at 127.0.0.1:")
    assert run(["health", "session", "--live", *PATIENT]) == 0
    operations.stop()
    assert run(["health", "session", "--live"]) == 1
    assert capsys.readouterr().err.startswith("error: SERVICE_UNREACHABLE: Nobody answers at 127.0.0.1:")


@pytest.mark.usefixtures("operations")
def test_a_container_knows_which_service_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["health"]) == 2
    monkeypatch.setenv("MINION_SERVICE", "session")
    assert run(["health", *PATIENT]) == 0
    monkeypatch.setenv("MINION_SERVICE", "sessions")
    for command in ("health", "serve"):
        capsys.readouterr()
        assert run([command]) == 2
        assert "'sessions' is none of gateway, registry" in capsys.readouterr().err


def test_where_the_operations_port_is() -> None:
    assert operations_address("memory", {}) == ("127.0.0.1", 9053)
    assert operations_address("memory", {"MINION_OPERATIONS_PORT": "7000"}) == ("127.0.0.1", 7000)
    both = {"MINION_OPERATIONS_PORT": "7000", "MINION_MEMORY_OPERATIONS_PORT": "7001"}
    assert operations_address("memory", both) == ("127.0.0.1", 7001)
    for host, reached in (("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.1.2.3", "10.1.2.3"), ("here", "here")):  # noqa: S104
        assert operations_address("memory", {"MINION_OPERATIONS_HOST": host}) == (reached, 9053)
    assert set(DOCUMENTED) == set(SCHEMAS)


def test_a_probe_loads_neither_grpc_nor_a_driver() -> None:
    program = (
        "import sys; sys.argv = ['minion', 'health', 'memory']; from minion_cli.__main__ import run; "
        "run(sys.argv[1:]); print(*(name for name in ('grpc', 'asyncpg', 'opentelemetry') if name in sys.modules))"
    )
    environ = {**os.environ, "MINION_MEMORY_OPERATIONS_PORT": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert "SERVICE_UNREACHABLE" in done.stderr


def test_a_served_service_ends_as_the_service_does(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MINION_")}
    done = subprocess.run(
        [sys.executable, "-m", "minion_cli", "serve", "registry"],
        env={**environ, "MINION_DATABASE_URL": "nonsense"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("The settings have 2 faults:")
    assert "MINION_AUTH_MODE" in done.stderr


def test_secrets_are_random_and_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / ".env"
    assert run(["secrets", "--out", str(path)]) == 0
    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert text not in capsys.readouterr().out
    assert run(["secrets", "--out", str(path)]) == 1
    assert capsys.readouterr().err.startswith("error: FILE_EXISTS: ")
    assert path.read_text() == text
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    assert run(["secrets", "--out", str(link)]) == 1
    assert not (tmp_path / "elsewhere").exists()
    assert run(["secrets", "--out", str(tmp_path / "no" / "folder")]) == 1

    assert run(["secrets"]) == 0
    printed = capsys.readouterr().out
    first, second = (dict(line.split("=") for line in each.splitlines() if "=" in line) for each in (text, printed))
    assert first.keys() == second.keys() == {name for group in made().values() for name in group}
    assert not set(first.values()) & set(second.values())
    assert all(len(secret) >= 32 for secret in first.values())
