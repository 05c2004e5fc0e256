"""docker-compose.yml with processes in place of containers: the same commands, the same environment, the same order."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from minion_cli.development import ports
from minion_cli.development.ports import Ports
from minion_postgres import SCHEMAS, EmbeddedPostgres, roles
from minion_postgres.roles import MONITOR

from deploy.checks.compose import FILE, SETTINGS, container_environment, fresh_environment, load
from deploy.checks.image import Dockerfile
from tests.architecture.contract import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.postgres, pytest.mark.timeout(1_200)]

_START_SECONDS = 180.0
_STOP_SECONDS = 60.0
# A check is a process of its own: asked without a pause, it would take the time that the service needs to start.
_BETWEEN_CHECKS = 0.5


@dataclass(frozen=True, slots=True)
class Composed:
    """What runs, and where its doors are on this machine."""

    services: Mapping[str, Any]
    secrets: Mapping[str, str]
    ports: Mapping[str, Ports]
    postgres: EmbeddedPostgres
    folder: Path
    image: Dockerfile

    def environ(self, name: str) -> dict[str, str]:
        """A container's whole environment, its hosts and ports replaced by those of this machine."""
        given = container_environment(self.services[name], self.image)
        replaced = {
            f"{service}:{documented.rpc}": f"127.0.0.1:{self.ports[service].rpc}"
            for service, documented in ports.DOCUMENTED.items()
        }
        replaced |= {"@postgres:5432": f"@127.0.0.1:{self.port}", "//postgres:5432": f"//127.0.0.1:{self.port}"}
        replaced |= {"0.0.0.0": "127.0.0.1", "otel-collector:4317": "127.0.0.1:1"}  # noqa: S104 - taken away
        for here, there in replaced.items():
            given = {variable: value.replace(here, there) for variable, value in given.items()}
        given["PATH"] = os.environ["PATH"]
        given["MINION_MODEL_CACHE"] = str(self.folder / "models")
        if name in self.ports:
            given[f"MINION_{name.upper()}_PORT"] = str(self.ports[name].rpc)
            given[f"MINION_{name.upper()}_OPERATIONS_PORT"] = str(self.ports[name].operations)
        return given

    @property
    def port(self) -> str:
        """Postgres' port on the loopback."""
        return str(urlsplit(self.postgres.dsn("anybody", "", tcp=True)).port)

    @property
    def admin_dsn(self) -> str:
        """The superuser's connection string, for looking behind the curtain."""
        return self.postgres.dsn("postgres", self.secrets["POSTGRES_PASSWORD"])

    def command(self, name: str) -> list[str]:
        """What a container runs: the image's entry point with compose's arguments, or the image's."""
        (entry,) = [json.loads(step.arguments) for step in self.image.image.steps if step.instruction == "ENTRYPOINT"]
        (arguments,) = [json.loads(step.arguments) for step in self.image.image.steps if step.instruction == "CMD"]
        assert entry == ["minion"]
        return [sys.executable, "-m", "minion_cli", *self.services[name].get("command", arguments)]

    def health(self, name: str) -> list[str]:
        """The image's health check."""
        (check,) = [step.arguments for step in self.image.image.steps if step.instruction == "HEALTHCHECK"]
        command: Sequence[str] = json.loads(check.partition("CMD ")[2])
        assert command[0] == "minion"
        assert "healthcheck" not in self.services[name]
        return [sys.executable, "-m", "minion_cli", *command[1:]]

    def run(self, name: str, *, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Runs a job to its end."""
        return subprocess.run(
            self.command(name),
            env=self.environ(name),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def minion(self, *arguments: str, stdin: str | None = None, **variables: str) -> str:
        """Runs `minion` as a person beside the published ports does, and gives what it printed."""
        given = {f"MINION_{name.upper()}_ADDRESS": f"127.0.0.1:{pair.rpc}" for name, pair in self.ports.items()}
        done = subprocess.run(
            [sys.executable, "-m", "minion_cli", *arguments],
            env={"PATH": os.environ["PATH"], "LOGNAME": "ada", **given, **variables},
            cwd=self.folder,
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
async def composed() -> AsyncIterator[Composed]:
    """A server that nobody has prepared: its roles are not those of the other tests."""
    secrets = fresh_environment()
    with tempfile.TemporaryDirectory(prefix="minion-test-") as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - the server's user passes through
        postgres = EmbeddedPostgres(Path(folder) / "pg", settings={"fsync": "off", "shared_buffers": "32MB"})
        await asyncio.to_thread(postgres.start)
        try:
            # The image gives its superuser the password of the environment.
            admin = await asyncpg.connect(postgres.admin_dsn())
            await admin.execute(f"ALTER ROLE postgres PASSWORD '{secrets['POSTGRES_PASSWORD']}'")
            await admin.close()
            services = load(ROOT / FILE, secrets)["services"]
            yield Composed(services, secrets, ports.free(), postgres, Path(folder), Dockerfile.read(ROOT))
        finally:
            await asyncio.to_thread(postgres.stop)


@asynccontextmanager
async def up(composed: Composed) -> AsyncIterator[dict[str, asyncio.subprocess.Process]]:
    """Starts the five services as compose does: each once those that it waits for are healthy."""
    running: dict[str, asyncio.subprocess.Process] = {}
    try:
        while len(running) < len(SETTINGS):
            name = next(
                name
                for name in SETTINGS
                if name not in running
                and set(composed.services[name]["depends_on"]) - {"migrate", "postgres"} <= set(running)
            )
            with (composed.folder / f"{name}.log").open("wb") as log:
                running[name] = await asyncio.create_subprocess_exec(
                    *composed.command(name), env=composed.environ(name), cwd=composed.folder, stdout=log, stderr=log
                )
            await healthy(composed, name, running[name])
        yield running
    finally:
        await stopped(running)


async def stopped(running: Mapping[str, asyncio.subprocess.Process]) -> dict[str, int | None]:
    """Stops the services as compose does, those first that call others; gives their exit codes."""
    for process in reversed(list(running.values())):
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
    return {name: process.returncode for name, process in running.items()}


async def healthy(composed: Composed, name: str, process: asyncio.subprocess.Process) -> None:
    """Asks as the engine does until the service is well."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        check = await asyncio.create_subprocess_exec(
            *composed.health(name),
            env=composed.environ(name),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        if await check.wait() == 0:
            return
        log = (composed.folder / f"{name}.log").read_text()
        assert process.returncode is None, f"{name} ended: {log[-2000:]}"
        assert time.monotonic() < deadline, f"{name} is not healthy: {log[-2000:]}"
        await asyncio.sleep(_BETWEEN_CHECKS)


async def test_a_turn_through_what_compose_starts(composed: Composed) -> None:
    for _ in range(2):  # `docker compose up` runs the job each time
        migrated = await asyncio.to_thread(composed.run, "migrate")
        assert migrated.returncode == 0, migrated.stderr
        assert migrated.stdout.startswith(f"bootstrapped: {', '.join(SCHEMAS)}")
    await roles_are_as_promised(composed)

    async with up(composed) as running:
        operator = {"MINION_OPERATOR_KEY": composed.secrets["MINION_OPERATOR_KEY"]}

        def talk() -> list[str]:
            composed.minion("tenants", "create", "acme", **operator)
            key = composed.minion("keys", "create", "first", "--tenant", "acme", "-o", "json", **operator)
            tenant = {"MINION_API_KEY": json.loads(key)["secret"]}
            composed.minion("agents", "create", "first", "--instructions", "Be brief.", **tenant)
            composed.minion("agents", "activate", "first", **tenant)
            return composed.minion("chat", "first", stdin="Hello there.\n", **tenant).splitlines()

        said = await asyncio.to_thread(talk)
        assert any("You said: Hello there." in line for line in said), said

        for name in SETTINGS:
            lines = (composed.folder / f"{name}.log").read_text().splitlines()
            # Logs are JSON alone, tell of no setting that sets nothing, and hold no secret.
            told = [json.loads(line) for line in lines]
            assert "unknown setting" not in {line["event"] for line in told}
            assert not any(secret in line for line in lines for secret in composed.secrets.values())
        assert await stopped(running) == dict.fromkeys(SETTINGS, 0)

    # Where the root file system is read-only, nothing else could have been written.
    assert {path.name for path in composed.folder.iterdir()} == {"pg", "models", *(f"{name}.log" for name in SETTINGS)}


async def roles_are_as_promised(composed: Composed) -> None:
    """Looks whether services log in as roles of their own that may no more than they need."""
    admin = await asyncpg.connect(composed.admin_dsn)
    try:
        for name in (*(roles(schema).app for schema in SCHEMAS), *(roles(schema).owner for schema in SCHEMAS), MONITOR):
            may_no_more = await admin.fetchval(
                "SELECT rolcanlogin AND NOT (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb)"
                "  FROM pg_roles WHERE rolname = $1",
                name,
            )
            assert may_no_more, name
    finally:
        await admin.close()
    exporter = composed.services["postgres-exporter"]["environment"]
    monitor = await asyncpg.connect(composed.postgres.dsn(exporter["DATA_SOURCE_USER"], exporter["DATA_SOURCE_PASS"]))
    await monitor.fetch("SELECT * FROM pg_stat_activity")
    await monitor.close()
