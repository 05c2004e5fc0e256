"""A real Postgres in a folder, for development and tests: started and ended with the process that owns it.

```python
with EmbeddedPostgres(Path(".minion/postgres")) as postgres:
    await bootstrap(postgres.admin_dsn(), …)
```

The folder holds `access.json` (where it listens, the administrator's password; mode 0600), two locks, and the cluster
itself, unless we are root and the server's user can't get there: then the cluster lies under the system folder.

Who ends whom: the server is the child of a small shell that reads a pipe which only the owner holds open. When the
owner ends, however it ends, the pipe closes and the shell asks the server for a fast shutdown. `owner.lock` is held by
the owner; `cluster.lock` is inherited by the server's processes, so it is free exactly when none of them lives: only
then is a left-over `postmaster.pid` removed.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from minion_postgres import binaries, cluster_files
from minion_postgres.binaries import Account, EmbeddedPostgresError

_ADMINISTRATOR: Final = "postgres"
_DATABASE: Final = "minion"
_SOCKET_PATH_LIMIT: Final = 100  # bytes; the kernel's limit is 107 (103 on macOS)
_LOG_LIMIT: Final = 10 * 1024 * 1024
_PAUSE: Final = 0.02
_ATTEMPTS: Final = 3

# $@ is the server's command. The reader must not inherit the script's stdin as it is: shells give /dev/null to what
# runs in the background.
_WATCHDOG: Final = """
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
(read -r _ <&3; kill -INT "$server") &
reader=$!
wait "$server"
status=$?
kill "$reader" 2>/dev/null
exit "$status"
"""

_DEFAULTS: Final = {
    # Five services with their pools, their maintenance, and a person with psql.
    "max_connections": "300",
    "shared_buffers": "128MB",
    "unix_socket_permissions": "0700",
    "listen_addresses": "127.0.0.1",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "cluster_name": "minion",
}


class EmbeddedPostgresInUseError(EmbeddedPostgresError):
    """Another process owns this folder; `attach` shares its server."""


@dataclass(frozen=True, slots=True)
class _Access:
    """Where the server is and how its administrator gets in; what `access.json` holds."""

    cluster: str
    password: str
    sockets: str = ""
    port: int = 0


class EmbeddedPostgres:
    """One Postgres cluster in a folder. Its calls block for up to seconds: call them outside the event loop."""

    def __init__(
        self,
        directory: Path,
        *,
        settings: Mapping[str, str] | None = None,
        user: str | None = None,
        installation: Path | None = None,
        system_folder: Path = binaries.SYSTEM_FOLDER,
    ) -> None:
        """Prepares; starts nothing.

        `settings` are Postgres' own and win over the defaults (tests switch `fsync` off). `user` is the system user to
        take when we are root; `installation` the binaries to use instead of the installed ones.
        """
        self._directory = directory.absolute()
        self._settings = {**_DEFAULTS, **(settings or {})}
        self._user = user
        self._installation = installation
        self._system_folder = system_folder
        self._access: _Access | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._owner_lock: int | None = None

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1, for psql and other tools."""
        return self._reached().port

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return Path(self._reached().cluster) / "postgres.log"

    def admin_dsn(self, database: str = _DATABASE) -> str:
        """The administrator's connection string; holds the password."""
        return self.dsn(_ADMINISTRATOR, self._reached().password, database)

    def dsn(self, user: str, password: str, database: str = _DATABASE, *, tcp: bool = False) -> str:
        """A connection string over the unix socket, or over TCP for tools that need it."""
        access = self._reached()
        credentials = f"{quote(user, safe='')}:{quote(password, safe='')}"
        if tcp:
            return f"postgresql://{credentials}@127.0.0.1:{access.port}/{quote(database, safe='')}"
        where = f"host={quote(access.sockets, safe='/')}&port={access.port}"
        return f"postgresql://{credentials}@/{quote(database, safe='')}?{where}"

    def start(self, *, timeout: float = 60.0) -> None:
        """Starts the server as ours, making the cluster at the first time.

        Raises EmbeddedPostgresInUseError when another process owns the folder, EmbeddedPostgresError when it fails;
        the message holds the end of the server's log.
        """
        deadline = time.monotonic() + timeout
        self._directory.mkdir(parents=True, exist_ok=True)
        self._owner_lock = cluster_files.lock(self._directory / "owner.lock")
        if self._owner_lock is None:
            raise EmbeddedPostgresInUseError(f"another process runs the Postgres in {self._directory}")
        try:
            self._start(deadline)
        except BaseException:
            self.stop()
            raise

    def attach(self, *, timeout: float = 30.0) -> None:
        """Uses the server that another process owns; `stop` then leaves it running.

        Raises EmbeddedPostgresError when none is running.
        """
        deadline = time.monotonic() + timeout
        free = cluster_files.lock(self._directory / "owner.lock") if self._directory.is_dir() else None
        if free is not None or not self._directory.is_dir():
            if free is not None:
                os.close(free)
            raise EmbeddedPostgresError(f"no Postgres is running in {self._directory}")
        while True:
            access = self._read_access()
            if access is not None and access.port and cluster_files.is_ready(Path(access.cluster) / "data"):
                self._access = access
                return
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"the Postgres in {self._directory} does not become ready")
            time.sleep(_PAUSE)

    def stop(self, *, timeout: float = 30.0) -> None:
        """Ends the server if it is ours, with a fast shutdown; after `timeout` seconds with an immediate one."""
        if self._watchdog is not None:
            self._end_server(self._watchdog, timeout)
            self._remove_sockets()
        if self._owner_lock is not None:
            os.close(self._owner_lock)
            self._owner_lock = None
        self._access = None

    def is_alive(self) -> bool:
        """Says whether the server that we started is still running."""
        return self._watchdog is not None and self._watchdog.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, deadline: float) -> None:
        account = binaries.account(self._user)
        access = self._read_access()
        if access is None:
            access = _Access(cluster=str(self._place(account)), password=secrets.token_urlsafe(24))
            self._write_access(access)
        self._access = access
        cluster = Path(access.cluster)
        data = cluster / "data"
        if data.exists() and account.name is not None:
            # The cluster belongs to whoever made it, whatever users this machine has by now.
            owner = data.stat()
            account = Account(account.name, owner.st_uid, owner.st_gid)
        installation = binaries.usable(self._installation or binaries.installed(), account, self._system_folder)
        with cluster_files.cluster_lock(cluster, deadline) as cluster_lock:
            if not data.exists():
                cluster_files.make_cluster(installation, cluster, account, (_ADMINISTRATOR, access.password), _DATABASE)
            version = (data / "PG_VERSION").read_text().strip()
            if version != str(binaries.MAJOR):
                raise EmbeddedPostgresError(f"{data} was made by Postgres {version}; this is {binaries.MAJOR}")
            # cluster.lock is ours, so no process of this cluster lives, and the pid in the file is somebody else's.
            (data / "postmaster.pid").unlink(missing_ok=True)
            for attempt in range(1, _ATTEMPTS + 1):
                access = self._listening(access, account)
                if self._launch(installation, access, account, cluster_lock, deadline):
                    return
                assert self._watchdog is not None
                self._end_server(self._watchdog, timeout=5.0)
                if attempt == _ATTEMPTS or time.monotonic() > deadline:
                    log = cluster_files.tail(cluster / "postgres.log")
                    raise EmbeddedPostgresError(f"Postgres does not start:\n{log}")

    def _launch(
        self, installation: Path, access: _Access, account: Account, cluster_lock: int, deadline: float
    ) -> bool:
        """Starts the server and waits until it takes connections; False when it ended instead."""
        cluster = Path(access.cluster)
        options = {**self._settings, "port": str(access.port), "unix_socket_directories": access.sockets}
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        log_path = cluster / "postgres.log"
        if log_path.exists() and log_path.stat().st_size > _LOG_LIMIT:
            log_path.unlink()
        with log_path.open("ab") as log:
            self._watchdog = subprocess.Popen(  # noqa: S603 - our own binaries
                [
                    *("/bin/sh", "-c", _WATCHDOG, "minion-postgres"),
                    *(str(installation / "bin" / "postgres"), "-D", str(cluster / "data")),
                    *arguments,
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C"},
                # A Ctrl-C in the terminal is for us: services drain first, then the server ends.
                start_new_session=True,
                pass_fds=(cluster_lock,),
                **account.options,
            )
        while not cluster_files.is_ready(cluster / "data"):
            if self._watchdog.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        return True

    def _end_server(self, watchdog: "subprocess.Popen[bytes]", timeout: float) -> None:
        assert watchdog.stdin is not None
        watchdog.stdin.close()
        try:
            watchdog.wait(timeout)
        except subprocess.TimeoutExpired:
            cluster_files.signal_server(Path(self._reached().cluster) / "data", signal.SIGQUIT)
            watchdog.wait(timeout)
        self._watchdog = None

    def _place(self, account: Account) -> Path:
        """Decides where the cluster lies, and makes its folder: here, or where the server's user can go."""
        here = self._directory / "cluster"
        here.mkdir(mode=0o700, exist_ok=True)
        account.give(here)
        if account.can(["test", "-w", here]):
            return here
        here.rmdir()
        there = self._system_folder / f"cluster-{secrets.token_hex(6)}"
        try:
            there.mkdir(mode=0o700, parents=True)
            account.give(there)
        except OSError as error:
            raise EmbeddedPostgresError(f"can't make the cluster's folder {there}: {error}") from error
        if not account.can(["test", "-w", there]):
            raise EmbeddedPostgresError(f"{account.name} can write neither to {here} nor to {there}")
        return there

    def _listening(self, access: _Access, account: Account) -> _Access:
        """Picks a socket folder with a short path and a free port, the last one's if it is free; writes them down."""
        self._remove_sockets()
        sockets = Path(access.cluster) / "run"
        if len(os.fsencode(sockets)) + len("/.s.PGSQL.65535") > _SOCKET_PATH_LIMIT:
            sockets = Path(tempfile.mkdtemp(prefix="minion-", dir="/tmp"))
        sockets.mkdir(mode=0o700, exist_ok=True)
        account.give(sockets)
        access = _Access(access.cluster, access.password, str(sockets), cluster_files.free_port(access.port))
        self._write_access(access)
        self._access = access
        return access

    def _remove_sockets(self) -> None:
        access = self._reached()
        if access.sockets and not Path(access.sockets).is_relative_to(access.cluster):
            shutil.rmtree(access.sockets, ignore_errors=True)

    def _reached(self) -> _Access:
        if self._access is None:
            raise EmbeddedPostgresError("the embedded Postgres is not running: start() or attach() first")
        return self._access

    def _read_access(self) -> _Access | None:
        try:
            return _Access(**json.loads((self._directory / "access.json").read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise EmbeddedPostgresError(f"{self._directory / 'access.json'} is damaged: {error}") from error

    def _write_access(self, access: _Access) -> None:
        partial = self._directory / "access.json.partial"
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(access), file)
        partial.rename(self._directory / "access.json")
