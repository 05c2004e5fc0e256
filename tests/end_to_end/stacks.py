"""`minion` as its users run it: a process of its own, in a directory of its own."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from minion_testing.postgres import PATIENCE_SECONDS, TRANSACTION_IDLE_SECONDS
from minion_testing.serving import SERVICES, free_ports

ROOT = Path(__file__).parents[2]
_READY_SECONDS = 180.0
STOP_SECONDS = 120.0


@dataclass(slots=True)
class RunningStack:
    """A `minion dev` that said it is ready."""

    process: asyncio.subprocess.Process
    directory: Path
    log: Path
    ready_line: str
    seconds: float
    addresses: dict[str, str]
    operations: dict[str, str]

    @property
    def credentials(self) -> dict[str, str]:
        """What the stack keeps for its user."""
        content: dict[str, str] = json.loads((self.directory / "credentials.json").read_text())
        return content

    def channel(self, service: str) -> grpc.aio.Channel:
        """A plain channel, as any client in any language has one."""
        return grpc.aio.insecure_channel(self.addresses[service])

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The tenant's credential."""
        return (("authorization", f"Bearer {self.credentials['api_key']}"),)

    async def stop(self, signal_number: int) -> int:
        """Sends a signal and waits for the end; gives the exit code."""
        self.process.send_signal(signal_number)
        async with asyncio.timeout(STOP_SECONDS):
            return await self.process.wait()


def environ(**more: str) -> dict[str, str]:
    """The environment of a fresh terminal: none of the project's variables, no provider."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MINION_", "OPENAI_", "OTEL_", "COV_", "PYTEST_"))
    }
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(str(ROOT / source) for source in ("services", "shared")),
        "MINION_TRANSACTION_IDLE_SECONDS": str(TRANSACTION_IDLE_SECONDS),
        "MINION_POOL_ACQUIRE_SECONDS": str(PATIENCE_SECONDS),
        "MINION_STATEMENT_SECONDS": str(PATIENCE_SECONDS),
        # What gRPC's own code may say on a machine in distress is no line of ours.
        "GRPC_VERBOSITY": "NONE",
        **more,
    }


def service_ports() -> dict[str, str]:
    """Ports for a command that takes the documented ones else, of which some are among those of outgoing connections.

    Whoever connects to anybody while such a stack starts may get one of them.
    """
    numbers = iter(free_ports(2 * len(SERVICES)))
    return {
        f"MINION_{service.upper()}_{kind}": str(next(numbers))
        for service in SERVICES
        for kind in ("PORT", "OPERATIONS_PORT")
    }


async def start_dev(directory: Path, *options: str, env: Mapping[str, str], own_ports: bool = True) -> RunningStack:
    """Starts `minion dev` and waits for its ready line."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    log = directory.parent / f"{directory.name}-stderr.log"
    command = [sys.executable, "-m", "minion_cli", "dev", "--directory", str(directory), *options]
    started = time.monotonic()
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            *command, *(("--free-ports",) if own_ports else ()), stdout=asyncio.subprocess.PIPE, stderr=file, env=env
        )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_READY_SECONDS):
            line = (await process.stdout.readline()).decode().strip()
        assert line.startswith("ready "), f"{line!r}, and in its log: {log.read_text()[-2000:]}"
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    said = dict(part.split("=", 1) for part in line.split()[1:])
    return RunningStack(
        process,
        directory,
        log,
        line,
        time.monotonic() - started,
        {name: address for name, address in said.items() if "." not in name},
        {name.removesuffix(".operations"): address for name, address in said.items() if "." in name},
    )


@asynccontextmanager
async def dev(
    directory: Path, *options: str, env: Mapping[str, str], own_ports: bool = True
) -> AsyncIterator[RunningStack]:
    """Runs `minion dev` for a block."""
    stack = await start_dev(directory, *options, env=env, own_ports=own_ports)
    try:
        yield stack
    finally:
        if stack.process.returncode is None:
            stack.process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await stack.process.wait()
            except TimeoutError:
                stack.process.kill()
                await stack.process.wait()


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


async def minion(
    *arguments: str, cwd: Path, env: Mapping[str, str], stdin: str | None = None, seconds: float = _READY_SECONDS
) -> Done:
    """Runs one `minion` command to its end; some bring a whole stack up."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "minion_cli",
        *arguments,
        stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env=env,
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate(None if stdin is None else stdin.encode())
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 60.0) -> None:
    """Waits until a condition holds; fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.05)
