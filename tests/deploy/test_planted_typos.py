"""`make deploy-check` finds a slip of the pen in each kind of file."""

import subprocess

import pytest

from tests.architecture.contract import ROOT
from tests.deploy.copies import Copy, copied

__all__ = ["copied"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not (ROOT / ".venv" / "bin" / "hadolint").exists(), reason="runs what `make install` installed"),
]


def make(copied: Copy, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a target in the copy, whose environment is the repository's and is taken as it is."""
    return subprocess.run(
        ["make", "--no-print-directory", "--old-file=.venv/.installed", *arguments],
        cwd=copied.folder,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


@pytest.mark.parametrize("target", ["check-image", "check-compose", "check-yaml"])
def test_what_is_right_passes(copied: Copy, target: str) -> None:
    done = make(copied, target)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_an_engine_nothing_is_begun(copied: Copy) -> None:
    done = make(copied, "docker-up", "DOCKER=no-engine")
    assert done.returncode == 2
    assert "error: this needs docker with buildx and compose v2, and a running daemon" in done.stderr
    assert not (copied.folder / ".env").exists()


@pytest.mark.parametrize(
    ("target", "path", "old", "new", "told"),
    [
        ("check-image", "deploy/Dockerfile", "HEALTHCHECK", "HEALTCHECK", "unexpected 'H'"),
        ("check-image", "deploy/Dockerfile", "requirements-build.lock", "requirement-build.lock", "which there is not"),
        ("check-compose", "docker-compose.yml", "stop_grace_period", "stop_grace_periode", "stop_grace_periode"),
        ("check-compose", "docker-compose.yml", "session: {condition", "sessions: {condition", "depends on sessions"),
        (
            "check-yaml",
            "deploy/otel-collector/config.yml",
            "    timeout: 1s",
            "    timeout: 1s\n    timeout: 2s",
            "key-dup",
        ),
    ],
)
def test_a_typo_is_told(copied: Copy, target: str, path: str, old: str, new: str, told: str) -> None:
    copied.replace(path, old, new)
    done = make(copied, target)
    assert done.returncode == 2
    assert told in done.stdout + done.stderr
