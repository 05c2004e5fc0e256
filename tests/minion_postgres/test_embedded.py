"""The embedded server: who owns it, who ends it, and where it lies when we are root."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from minion_postgres import EmbeddedPostgres, EmbeddedPostgresError, EmbeddedPostgresInUseError, binaries, cluster_files

# Servers are started and killed here.
pytestmark = pytest.mark.slow

QUICK = {"fsync": "off", "shared_buffers": "16MB", "max_connections": "20"}
SOURCE_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path that every user may pass through."""
    with tempfile.TemporaryDirectory(prefix="minion-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def value(dsn: str, sql: str) -> object:
    async def ask() -> object:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return in_a_thread(lambda: asyncio.run(ask()))


def in_a_thread(call: Callable[[], object]) -> object:
    # The tests' own loop is running or about to; a thread has none.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def server_pid(directory: Path) -> int:
    return int((cluster(directory) / "data" / "postmaster.pid").read_text().splitlines()[0])


def cluster(directory: Path) -> Path:
    import json

    return Path(json.loads((directory / "access.json").read_text())["cluster"])


def owner(directory: Path, before: str = "") -> "subprocess.Popen[str]":
    """Starts a process that owns the server in a folder, and waits until it says so."""
    script = f"""
        import sys, time
        from pathlib import Path
        from minion_postgres import EmbeddedPostgres
        {before}
        postgres = EmbeddedPostgres(Path({str(directory)!r}), settings={QUICK!r})
        postgres.start()
        print("started", flush=True)
        sys.stdin.readline()
        postgres.stop()
        print("stopped", flush=True)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def close(process: "subprocess.Popen[str]") -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.wait(60)


def test_data_and_password_last_and_strangers_are_refused(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder / "pg", settings=QUICK)
    with postgres:
        first = postgres.admin_dsn()
        value(first, "CREATE TABLE kept AS SELECT 7 AS number")
        assert value(first, "SHOW password_encryption") == "scram-sha-256"
        assert value(first, "SHOW server_encoding") == "UTF8"
        for tcp in (False, True):
            assert value(postgres.dsn("postgres", password_of(first), tcp=tcp), "SELECT 1") == 1
            with pytest.raises(asyncpg.InvalidPasswordError):
                value(postgres.dsn("postgres", "guess", tcp=tcp), "SELECT 1")
        port = postgres.port
        assert postgres.is_alive()
    assert not postgres.is_alive()
    with postgres:
        assert value(postgres.admin_dsn(), "SELECT number FROM kept") == 7
        assert postgres.port == port
    assert (folder / "pg" / "access.json").stat().st_mode & 0o777 == 0o600


def test_fsync_is_on_and_there_are_connections_for_all_by_default(folder: Path) -> None:
    with EmbeddedPostgres(folder / "pg") as postgres:
        assert value(postgres.admin_dsn(), "SHOW fsync") == "on"
        assert value(postgres.admin_dsn(), "SHOW max_connections") == "300"
        assert value(postgres.admin_dsn(), "SHOW listen_addresses") == "127.0.0.1"


def test_a_killed_owner_takes_the_server_with_it(folder: Path) -> None:
    process = owner(folder / "pg")
    pid = server_pid(folder / "pg")
    assert is_alive(pid)
    process.send_signal(signal.SIGKILL)
    until(lambda: not is_alive(pid))
    close(process)
    with EmbeddedPostgres(folder / "pg", settings=QUICK) as postgres:
        assert value(postgres.admin_dsn(), "SELECT 1") == 1


def test_an_owner_starts_at_once_after_one_that_was_killed(folder: Path) -> None:
    process = owner(folder / "pg")
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    with EmbeddedPostgres(folder / "pg", settings=QUICK) as postgres:
        assert value(postgres.admin_dsn(), "SELECT 1") == 1
    close(process)


def test_a_server_that_lost_its_watchdog_is_ended_before_a_new_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = owner(folder / "pg")
    pid = server_pid(folder / "pg")
    shell = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    family = [int(child) for child in Path(f"/proc/{shell}/task/{shell}/children").read_text().split()]
    for doomed in [shell, *(child for child in family if child != pid), process.pid]:
        os.kill(doomed, signal.SIGKILL)
    process.wait(60)
    assert is_alive(pid)
    monkeypatch.setattr(cluster_files, "_GRACE", 0.1)
    with EmbeddedPostgres(folder / "pg", settings=QUICK) as postgres:
        assert server_pid(folder / "pg") != pid
        assert value(postgres.admin_dsn(), "SELECT 1") == 1
    assert not is_alive(pid)
    close(process)


def test_a_stale_pid_of_a_stranger_is_neither_trusted_nor_harmed(folder: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        with EmbeddedPostgres(folder / "pg", settings=QUICK):
            lines = (cluster(folder / "pg") / "data" / "postmaster.pid").read_text().splitlines()
        lines[0] = str(stranger.pid)
        (cluster(folder / "pg") / "data" / "postmaster.pid").write_text("\n".join(lines))
        with EmbeddedPostgres(folder / "pg", settings=QUICK) as postgres:
            assert server_pid(folder / "pg") != stranger.pid
            assert value(postgres.admin_dsn(), "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_second_owner_is_refused_and_may_attach(folder: Path) -> None:
    process = owner(folder / "pg")
    second = EmbeddedPostgres(folder / "pg")
    with pytest.raises(EmbeddedPostgresInUseError, match="another process"):
        second.start()
    second.attach()
    assert value(second.admin_dsn(), "SELECT 1") == 1
    second.stop()
    assert is_alive(server_pid(folder / "pg"))
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout is not None
    assert process.stdout.readline() == "stopped\n"
    close(process)


def test_there_is_nothing_to_attach_to(folder: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="no Postgres is running"):
        EmbeddedPostgres(folder / "absent").attach()
    with EmbeddedPostgres(folder / "pg", settings=QUICK):
        pass
    with pytest.raises(EmbeddedPostgresError, match="no Postgres is running"):
        EmbeddedPostgres(folder / "pg").attach()
    with pytest.raises(EmbeddedPostgresError, match="not running"):
        EmbeddedPostgres(folder / "pg").admin_dsn()


@pytest.mark.skipif(not SOURCE_PORTS.exists(), reason="needs Linux' range of source ports")
def test_no_outgoing_connection_gets_the_port_while_the_server_is_down() -> None:
    first, last = map(int, SOURCE_PORTS.read_text().split())
    assert not [port for port in (cluster_files.free_port(0) for _ in range(20)) if first <= port <= last]


def test_a_port_that_was_taken_meanwhile_is_replaced(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder / "pg", settings=QUICK)
    with postgres:
        port = postgres.port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with postgres:
            assert postgres.port != port


def test_a_deep_folder_gets_a_short_socket_that_goes_with_it(folder: Path) -> None:
    deep = folder / ("deep" * 20)
    postgres = EmbeddedPostgres(deep, settings=QUICK)
    with postgres:
        dsn = postgres.admin_dsn()
        assert value(dsn, "SELECT 1") == 1
        sockets = Path(str(value(dsn, "SHOW unix_socket_directories")))
        assert sockets.stat().st_mode & 0o777 == 0o700
    assert not sockets.exists()


def test_what_is_wrong_is_told(folder: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        EmbeddedPostgres(folder / "pg", settings={"no_such_setting": "1"}).start()
    with EmbeddedPostgres(folder / "pg", settings=QUICK):
        pass
    (cluster(folder / "pg") / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedPostgresError, match="made by Postgres 12"):
        EmbeddedPostgres(folder / "pg").start()
    (folder / "pg" / "access.json").write_text("{")
    with pytest.raises(EmbeddedPostgresError, match="damaged"):
        EmbeddedPostgres(folder / "pg").start()


@as_root
@pytest.mark.parametrize("user", ["nobody", None])
def test_as_root_a_system_user_runs_it_in_place_where_it_can(folder: Path, user: str | None) -> None:
    with EmbeddedPostgres(folder / "pg", settings=QUICK, user=user, system_folder=folder / "system") as postgres:
        assert value(postgres.admin_dsn(), "SELECT 1") == 1
        assert Path(f"/proc/{server_pid(folder / 'pg')}").stat().st_uid != 0
        assert cluster(folder / "pg") == folder / "pg" / "cluster"


@as_root
def test_as_root_closed_homes_stay_closed(folder: Path) -> None:
    home = folder / "home"
    home.mkdir(mode=0o700)
    site = home / "site-packages"
    installed = binaries.installed()
    shutil.copytree(installed, site / installed.parent.name / installed.name, copy_function=link)
    libraries = installed.parent.parent / f"{installed.parent.name}.libs"
    shutil.copytree(libraries, site / libraries.name, copy_function=link)
    system = folder / "system"
    for _ in range(2):
        postgres = EmbeddedPostgres(
            home / "pg",
            settings=QUICK,
            user="nobody",
            installation=site / installed.parent.name / installed.name,
            system_folder=system,
        )
        with postgres:
            assert value(postgres.admin_dsn(), "SELECT 1") == 1
            assert cluster(home / "pg").parent == system
            executable = Path(f"/proc/{server_pid(home / 'pg')}/exe").readlink()
            assert executable.is_relative_to(system)
    assert home.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name.split("-")[0] for path in system.iterdir()) == ["cluster", "postgres"]
    assert cluster(home / "pg").stat().st_mode & 0o777 == 0o700


@as_root
def test_an_ordinary_user_needs_no_system_folder(folder: Path) -> None:
    nobody = binaries.account("nobody")
    os.chown(folder, nobody.uid, nobody.gid)
    become = f"import asyncpg, os; os.setgroups([]); os.setgid({nobody.gid}); os.setuid({nobody.uid})"
    process = owner(folder / "pg", become)
    pid = server_pid(folder / "pg")
    assert Path(f"/proc/{pid}").stat().st_uid == nobody.uid
    process.send_signal(signal.SIGKILL)
    until(lambda: not is_alive(pid))
    close(process)


def link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def password_of(dsn: str) -> str:
    from minion_postgres.dsn import parse

    return parse(dsn).password or ""
