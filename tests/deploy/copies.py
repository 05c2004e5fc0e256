"""A copy of what deploys, to plant faults in."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.architecture.contract import ROOT

_FILES = (
    *(
        "Makefile",
        "pyproject.toml",
        "README.md",
        "docker-compose.yml",
        "docker-compose.tls.yml",
        ".dockerignore",
        ".gitignore",
    ),
    *(".hadolint.yaml", ".yamllint", "requirements.lock", "requirements-model.lock"),
    *("requirements-runtime.lock", "requirements-build.lock"),
)


@dataclass(frozen=True, slots=True)
class Copy:
    """A folder with the files of the repository that the deployment's checks read."""

    folder: Path

    def replace(self, path: str, old: str, new: str) -> None:
        """Puts other text into a file, once; fails where the file doesn't hold it."""
        text = (self.folder / path).read_text()
        assert old in text, f"{path} doesn't hold {old!r}"
        (self.folder / path).write_text(text.replace(old, new, 1))


@pytest.fixture
def copied(tmp_path: Path) -> Copy:
    for name in _FILES:
        shutil.copy2(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("services", "shared", "docs", ".venv"):
        os.symlink(ROOT / name, tmp_path / name)
    return Copy(tmp_path)
