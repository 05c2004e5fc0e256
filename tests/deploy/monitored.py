"""A real Prometheus and Postgres' real exporter, beside a stack: processes that a test starts, asks and ends."""

import asyncio
import contextlib
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
import yaml
from minion_postgres import EmbeddedPostgres, bootstrap
from minion_postgres.roles import MONITOR
from minion_testing.serving import free_ports

from tests.end_to_end.stacks import ROOT, until

PROMETHEUS = "prometheus"
EXPORTER = "prometheus-postgres-exporter"
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_ATTEMPTS = 3
# Nothing listens there: what its job's targets are where a test has no such thing.
_NOBODY = "127.0.0.1:9"


def needed(*programs: str) -> None:
    """Skips a test where Debian's packages are missing; in CI they must be there."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"CI must have {', '.join(missing)}")
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: Debian's packages prometheus and prometheus-postgres-exporter")


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that the embedded Postgres' own user can get to, when we are root; pytest's own are closed to it."""
    with tempfile.TemporaryDirectory(prefix="minion-test-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, address: str, session: aiohttp.ClientSession) -> None:
        self._address = address
        self._session = session

    async def query(self, expression: str) -> list[float]:
        """The values of an instant query's result, those that are no number left out; none where there is no series.

        Fails where Prometheus can't evaluate it.
        """
        data = await self.get("query", query=expression)
        result = data["result"]
        samples = [result] if data["resultType"] == "scalar" else [series["value"] for series in result]
        values = [float(value) for _, value in samples]
        return [value for value in values if not math.isnan(value)]

    async def get(self, path: str, **parameters: str) -> Any:
        """The data that its API answers with."""
        async with self._session.post(f"http://{self._address}/api/v1/{path}", data=parameters) as answered:
            answer = await answered.json()
        assert answer["status"] == "success", f"{parameters}: {answer}"
        return answer["data"]

    async def rules(self) -> list[dict[str, Any]]:
        """All rules, with how their last evaluation went."""
        async with self._session.get(f"http://{self._address}/api/v1/rules") as answered:
            answer = await answered.json()
        return [rule for group in answer["data"]["groups"] for rule in group["rules"]]


def configuration(targets: Mapping[str, Mapping[str, str]], own_address: str) -> dict[str, Any]:
    """The delivered configuration with other targets and shorter intervals, and nothing else changed.

    `targets` are addresses by job and by the label `service`, which is empty where the job's targets have none.
    """
    delivered: dict[str, Any] = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    # No longer than its interval may a scrape take, and no shorter than a busy machine needs for it.
    delivered["global"].update(scrape_interval="5s", scrape_timeout="5s", evaluation_interval="1s")
    known = {**targets, "prometheus": {"": own_address}}
    for job in delivered["scrape_configs"]:
        for group in job["static_configs"]:
            service = group.get("labels", {}).get("service", "")
            group["targets"] = [known.get(job["job_name"], {}).get(service, _NOBODY)]
    return delivered


@asynccontextmanager
async def prometheus(directory: Path, targets: Mapping[str, Mapping[str, str]]) -> AsyncIterator[Prometheus]:
    """Runs a Prometheus with the delivered rules for a block."""
    shutil.copytree(ROOT / "deploy/prometheus/rules", directory / "rules")

    def command(address: str) -> list[str]:
        (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration(targets, address)))
        return [
            PROMETHEUS,
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=warn",
        ]

    async with aiohttp.ClientSession() as session:
        for attempt in range(_ATTEMPTS):
            address = f"127.0.0.1:{free_ports(1)[0]}"
            async with _running(command(address), directory / "prometheus.log") as process:
                # Somebody else may have taken the port meanwhile.
                if await _answers(session, f"http://{address}/-/ready", process) or attempt == _ATTEMPTS - 1:
                    assert process.returncode is None, (directory / "prometheus.log").read_text()[-2000:]
                    yield Prometheus(address, session)
                    return


@asynccontextmanager
async def postgres_exporter(directory: Path, stack: Path) -> AsyncIterator[str]:
    """Runs the exporter against a stack's Postgres, with the role that `minion migrate` makes for it; its address."""
    postgres = EmbeddedPostgres(stack / "postgres")
    await asyncio.to_thread(postgres.attach)
    password = secrets.token_hex(16)
    await bootstrap(postgres.admin_dsn(), [], monitor_password=password)
    environ = {
        "PATH": os.environ.get("PATH", ""),
        "DATA_SOURCE_NAME": postgres.dsn(MONITOR, password, tcp=True) + "?sslmode=disable",
    }
    log = directory / "exporter.log"
    async with aiohttp.ClientSession() as session:
        for attempt in range(_ATTEMPTS):
            address = f"127.0.0.1:{free_ports(1)[0]}"
            async with _running([EXPORTER, f"--web.listen-address={address}"], log, environ) as process:
                if await _answers(session, f"http://{address}/", process) or attempt == _ATTEMPTS - 1:
                    assert process.returncode is None, log.read_text()[-2000:]
                    yield address
                    return


async def deadlock(stack: Path) -> None:
    """Makes two sessions of a stack's Postgres wait for each other, until Postgres ends one of them."""
    postgres = EmbeddedPostgres(stack / "postgres")
    await asyncio.to_thread(postgres.attach)
    one, other = [await asyncpg.connect(postgres.admin_dsn()) for _ in range(2)]
    try:
        await one.execute("BEGIN; SELECT pg_advisory_xact_lock(1)")
        await other.execute("BEGIN; SELECT pg_advisory_xact_lock(2)")
        async with asyncio.timeout(_START_SECONDS):
            ended = await asyncio.gather(
                one.execute("SELECT pg_advisory_xact_lock(2)"),
                other.execute("SELECT pg_advisory_xact_lock(1)"),
                return_exceptions=True,
            )
        assert any(isinstance(fault, asyncpg.DeadlockDetectedError) for fault in ended), ended
    finally:
        await one.close()
        await other.close()


@asynccontextmanager
async def _running(
    command: list[str], log: Path, environ: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(*command, stdout=file, stderr=file, env=environ)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _answers(session: aiohttp.ClientSession, url: str, process: asyncio.subprocess.Process) -> bool:
    """Waits until it answers; False when it has ended."""

    async def ready() -> bool:
        if process.returncode is not None:
            return True
        try:
            async with session.get(url) as answered:
                return answered.status == 200
        except aiohttp.ClientError:
            return False

    await until(ready, seconds=_START_SECONDS)
    return process.returncode is None
