"""Single services as they are deployed, a process each, for benchmarks that need no more."""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import SERVICE_KEY, free_ports

_START_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Process:
    """A running service: where it answers, by gRPC and for its operators, and which process it is."""

    address: str
    operations: str
    pid: int


@asynccontextmanager
async def serving(
    database: ClonedDatabase, *names: str, variables: Mapping[str, str] | None = None, **settings: str
) -> AsyncIterator[Mapping[str, Process]]:
    """Runs services for a block, wired to each other.

    `settings` are variables without their prefix, in lower case; `variables` are others, by their whole name.
    """
    ports = free_ports(2 * len(names))
    addresses = {name: f"127.0.0.1:{port}" for name, port in zip(names, ports[::2], strict=True)}
    operations = dict(zip(names, ports[1::2], strict=True))
    processes: dict[str, asyncio.subprocess.Process] = {}
    with tempfile.TemporaryDirectory(prefix="minion-bench-") as place:
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MINION_", "OTEL_"))},
            **{f"MINION_{name.upper()}_ADDRESS": address for name, address in addresses.items()},
            **{f"MINION_{name.upper()}_DATABASE_URL": database.dsn(name) for name in names},
            **{f"MINION_{name.upper()}_PORT": address.rpartition(":")[2] for name, address in addresses.items()},
            **{f"MINION_{name.upper()}_OPERATIONS_PORT": str(port) for name, port in operations.items()},
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "MINION_AUTH_MODE": "required",
            "MINION_SERVICE_KEY": SERVICE_KEY,
            "MINION_MODEL_CACHE": str(Path(place) / "models"),
            **{f"MINION_{name.upper()}": value for name, value in settings.items()},
            **(variables or {}),
        }
        log = Path(place) / "log"
        try:
            with log.open("wb") as sink:
                for name in names:
                    command = (sys.executable, "-m", f"minion_{name}")
                    processes[name] = await asyncio.create_subprocess_exec(
                        *command, env=environ, stdout=sink, stderr=sink
                    )
            for name, address in addresses.items():
                await _healthy(address, processes[name], log)
            yield {
                name: Process(addresses[name], f"127.0.0.1:{operations[name]}", processes[name].pid) for name in names
            }
        finally:
            for process in processes.values():
                if process.returncode is None:
                    process.terminate()
            await asyncio.gather(*(process.wait() for process in processes.values()))


async def _healthy(address: str, process: asyncio.subprocess.Process, log: Path) -> None:
    """Waits until a service answers; raises with what it said when it has ended, or takes too long."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = asyncio.ensure_future(
            stub.Check(health_pb2.HealthCheckRequest(), timeout=_START_SECONDS, wait_for_ready=True)
        )
        ended = asyncio.ensure_future(process.wait())
        await asyncio.wait((answer, ended), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not answer.done() or answer.exception() is not None:
            answer.cancel()
            raise RuntimeError(f"a service did not start: {(await asyncio.to_thread(log.read_text))[-3000:]}")
