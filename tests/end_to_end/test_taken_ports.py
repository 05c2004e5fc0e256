"""A port that somebody else has: the service says so in one line, ends with 1, and leaves nothing behind."""

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import orjson
import pytest
from minion_cli.development.stack import serving
from minion_errors import Unavailable
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import OPERATOR_KEY, SERVICE_KEY, SERVICES, free_ports
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tests.end_to_end.stacks import ROOT, until


def listening() -> tuple[socket.socket, int]:
    """Takes a port as a server does."""
    held = socket.create_server(("127.0.0.1", 0))
    return held, int(held.getsockname()[1])


def bound(port: int) -> bool:
    """Tells whether somebody listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


async def connections(database: ClonedDatabase) -> int:
    """Counts the clients of a database, but for whoever asks."""
    connection = await asyncpg.connect(database.admin_dsn)
    try:
        found: int = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
    finally:
        await connection.close()
    return found


@pytest.mark.parametrize("variable", ["MINION_ACTIVITY_OPERATIONS_PORT", "MINION_ACTIVITY_PORT"])
async def test_a_service_that_finds_its_port_taken_ends_with_1(postgres: ClonedDatabase, variable: str) -> None:
    held, port = listening()
    other = {"MINION_ACTIVITY_OPERATIONS_PORT", "MINION_ACTIVITY_PORT"} - {variable}
    [free] = free_ports(1)
    with held:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "minion_activity",
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join(str(ROOT / source) for source in ("services", "shared")),
                "MINION_DATABASE_URL": postgres.dsn("activity"),
                "MINION_AUTH_MODE": "required",
                "MINION_SERVICE_KEY": SERVICE_KEY,
                "MINION_OPERATOR_KEY": OPERATOR_KEY,
                # What gRPC's own code may say on a machine in distress is no line of ours.
                "GRPC_VERBOSITY": "NONE",
                variable: str(port),
                other.pop(): str(free),
            },
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(120):
                _, errors = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    assert process.returncode == 1
    [line] = [orjson.loads(line) for line in errors.splitlines()]
    assert (line["event"], line["reason"]) == ("the service can't run", "PORT_UNAVAILABLE")
    assert line["address"] == f"127.0.0.1:{port}"


class Together(SpanExporter):
    """Ends once so many of them end at once."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)
        self.met = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        if self._barrier.wait(60) == 0:
            self.met += 1


async def test_a_stack_that_finds_a_port_taken_lets_go_of_everything(postgres: ClonedDatabase, tmp_path: Path) -> None:
    """The last service of five, in one process: what the others held by then is free again."""
    numbers = free_ports(2 * len(SERVICES))
    held, port = listening()
    variables = {
        "MINION_AUTH_MODE": "required",
        "MINION_SERVICE_KEY": SERVICE_KEY,
        "MINION_OPERATOR_KEY": OPERATOR_KEY,
        "MINION_MODEL_CACHE": str(tmp_path),
    }
    for place, service in enumerate(SERVICES):
        name = service.upper()
        variables[f"MINION_{name}_DATABASE_URL"] = postgres.dsn(service)
        variables[f"MINION_{name}_PORT"] = str(numbers[2 * place])
        variables[f"MINION_{name}_ADDRESS"] = f"127.0.0.1:{numbers[2 * place]}"
        variables[f"MINION_{name}_OPERATIONS_PORT"] = str(numbers[2 * place + 1])
    variables["MINION_GATEWAY_OPERATIONS_PORT"] = str(port)
    together = Together(len(SERVICES))
    with held, pytest.raises(Unavailable) as refused:
        async with serving(variables, span_exporters=[together]):
            pytest.fail("it serves")
    assert refused.value.reason == "PORT_UNAVAILABLE"
    assert refused.value.metadata["address"] == f"127.0.0.1:{port}"
    # A collector that hangs costs the end seconds, of all five once.
    assert together.met == 1

    # gRPC lets go of a port in threads of its own, and Postgres of a client in a process of its own.
    async def nobody() -> bool:
        return not any(bound(number) for number in numbers) and await connections(postgres) == 0

    await until(nobody)
