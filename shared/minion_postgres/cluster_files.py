"""The files of an embedded cluster: making it, its locks, and what its server says of itself."""

import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from minion_settings import free_ports

from minion_postgres.binaries import Account, EmbeddedPostgresError

_PAUSE: Final = 0.02
# How long a server may take to end by itself after its owner has, before it is asked again.
_GRACE: Final = 10.0
_READY_LINE: Final = 7  # the eighth line of postmaster.pid holds the server's state


def make_cluster(
    installation: Path, cluster: Path, account: Account, administrator: tuple[str, str], database: str
) -> None:
    """Makes the data folder with its administrator and one database, whole or not at all."""
    partial = cluster / "data.partial"
    shutil.rmtree(partial, ignore_errors=True)
    name, password = administrator
    password_file = cluster / f"password-{secrets.token_hex(6)}"
    with os.fdopen(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(password)
    account.give(password_file)
    try:
        _run(
            account,
            [
                *(installation / "bin" / "initdb", "-D", partial, "-U", name, f"--pwfile={password_file}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            ],
        )
    finally:
        password_file.unlink()
    _run(
        account,
        [installation / "bin" / "postgres", "--single", "-j", "-D", partial, "postgres"],
        f"CREATE DATABASE {database};\n\n",
    )
    partial.rename(cluster / "data")


def lock(path: Path) -> int | None:
    """Takes a lock file; None when another process holds it. The lock ends with its last descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def cluster_lock(cluster: Path, deadline: float) -> Iterator[int]:
    """Holds the lock that every process of the cluster inherits, waiting for the last of them to end.

    A server whose owner is gone ends by its watchdog; one that lost the watchdog as well is asked here.
    """
    patience = time.monotonic() + _GRACE
    while (descriptor := lock(cluster / "cluster.lock")) is None:
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(f"a Postgres server left over in {cluster} does not end")
        if time.monotonic() > patience:
            signal_server(cluster / "data", signal.SIGINT)
            patience = time.monotonic() + _GRACE
        time.sleep(_PAUSE)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_ready(data: Path) -> bool:
    """Says whether the server takes connections."""
    return _pid_file(data)[_READY_LINE : _READY_LINE + 1] == ["ready"]


def signal_server(data: Path, number: signal.Signals) -> None:
    """Sends a signal to the server that postmaster.pid names; only while cluster.lock is held by it."""
    lines = _pid_file(data)
    if lines and lines[0].isdigit():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(int(lines[0]), number)


def free_port(preferred: int) -> int:
    """Finds a free TCP port on the loopback interface; the preferred one if it is free.

    Another is none that outgoing connections get: they would take it while the server is down, which then comes back
    elsewhere.
    """
    if preferred:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", preferred))
                return preferred
    try:
        return free_ports(1)[0]
    except OSError as error:
        raise EmbeddedPostgresError(str(error)) from error


def tail(log: Path, lines: int = 15) -> str:
    """Returns the end of a log."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"


def _pid_file(data: Path) -> list[str]:
    try:
        return [line.strip() for line in (data / "postmaster.pid").read_text().splitlines()]
    except FileNotFoundError:
        return []


def _run(account: Account, command: Sequence[str | Path], stdin: str = "") -> None:
    done = subprocess.run(  # noqa: S603 - our own binaries
        command,
        input=stdin,
        text=True,
        capture_output=True,
        check=False,
        cwd="/",
        env={"PATH": os.defpath, "LC_ALL": "C"},
        timeout=120,
        **account.options,
    )
    if done.returncode != 0:
        name = Path(command[0]).name
        raise EmbeddedPostgresError(f"{name} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
