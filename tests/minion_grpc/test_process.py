"""A service as a process: how it starts, fails to start, and stops."""

import asyncio
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from minion_auth import ServiceTokens
from minion_testing.serving import free_ports

from tests.minion_grpc.authority import Authority, Folder
from tests.minion_grpc.echo import EchoRequest
from tests.minion_grpc.stage import SERVICE_KEY, stub

# Processes are started and stopped here.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TOKENS = ServiceTokens(SERVICE_KEY, "test")


class Process:
    """One running echo service and what it wrote."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, operations_port: int) -> None:
        self.process = process
        self.port = port
        self.operations_port = operations_port
        self.lines: list[dict[str, Any]] = []

    async def until(self, event: str) -> dict[str, Any]:
        """Reads the log until an event."""
        assert self.process.stderr is not None
        async with asyncio.timeout(60):
            while line := await self.process.stderr.readline():
                self.lines.append(orjson.loads(line))
                if self.lines[-1]["event"] == event:
                    return self.lines[-1]
        raise AssertionError(f"ended before {event!r}: {self.lines}")

    async def ended(self) -> int:
        """Waits for its end and gives the exit code."""
        async with asyncio.timeout(60):
            return await self.process.wait()


@asynccontextmanager
async def started(environ: dict[str, str] | None = None, *, pass_fds: tuple[int, ...] = ()) -> AsyncIterator[Process]:
    port, operations_port = free_ports(2)
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("services", "shared", ".")),
        "MINION_AUTH_MODE": "required",
        "MINION_SERVICE_KEY": SERVICE_KEY,
        "MINION_ECHO_PORT": str(port),
        "MINION_ECHO_OPERATIONS_PORT": str(operations_port),
        **(environ or {}),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.minion_grpc.echo_main",
        env={name: value for name, value in variables.items() if value},
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=pass_fds,
    )
    try:
        yield Process(process, port, operations_port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("event_loop", ["uvloop", "asyncio"])
async def test_a_signal_drains_calls_in_hand_and_ends_with_0(number: signal.Signals, event_loop: str) -> None:
    async with started({"MINION_PAUSE_SECONDS": "2", "MINION_EVENT_LOOP": event_loop}) as service:
        await service.until("serving")
        # Minted here: a token lives for a minute, and a module can wait longer for its turn.
        metadata = (("authorization", f"Bearer {TOKENS.mint()}"),)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            call = asyncio.ensure_future(_text(stub(channel).Echo(EchoRequest(text="x"), metadata=metadata)))
            # In hand is a call when its handler has begun, which the service itself tells.
            while await asyncio.to_thread(_begun, service.operations_port) < 1:
                if call.done():
                    # It failed, or it was answered since the service was asked: then the drain finds nothing in hand.
                    await call
            service.process.send_signal(number)
            assert await call == f"x from {service.process.pid}"
        assert await service.ended() == 0


async def test_the_operations_port_is_ready_with_the_service() -> None:
    async with started() as service:
        await service.until("serving")
        url = f"http://127.0.0.1:{service.operations_port}"
        assert await asyncio.to_thread(_get, f"{url}/readyz") == 200
        assert await asyncio.to_thread(_get, f"{url}/metrics") == 200


async def test_wrong_settings_end_it_with_2_and_all_faults() -> None:
    async with started(
        {"MINION_AUTH_MODE": "", "MINION_ECHO_PORT": "many", "MINION_LOG_LEVEL": "loud", "MINION_SERVICE_KEY": "short"}
    ) as service:
        _, errors = await asyncio.wait_for(service.process.communicate(), 60)
        assert service.process.returncode == 2
        for name in ("MINION_AUTH_MODE", "MINION_ECHO_PORT", "MINION_LOG_LEVEL", "MINION_SERVICE_KEY"):
            assert name in errors.decode()
        assert "short" not in errors.decode()
        assert "Traceback" not in errors.decode()


async def test_incomplete_tls_ends_it_with_2_and_all_faults(tmp_path: Path) -> None:
    authority = Authority()
    folder = Folder(tmp_path, authority.issue(), authority)
    folder.key.write_bytes(authority.issue().key)
    environ = {
        "MINION_TLS_CERTIFICATE": str(folder.certificate),
        "MINION_TLS_KEY": str(folder.key),
        "MINION_MTLS_CERTIFICATE": str(folder.ca),
        "MINION_PEER_CA": str(tmp_path / "gone.crt"),
    }
    async with started(environ) as service:
        _, errors = await asyncio.wait_for(service.process.communicate(), 60)
        assert service.process.returncode == 2
        lines = errors.decode().splitlines()
    assert lines[0] == "The settings have 5 faults:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "MINION_TLS_KEY",
        "MINION_MTLS_KEY",
        "MINION_MTLS_CLIENT_CA",
        "MINION_PEER_CA",
        "MINION_PEER_CA",
    ]


async def test_both_addresses_are_told_and_a_failed_handshake_leaves_no_line(tmp_path: Path) -> None:
    authority = Authority()
    folder = Folder(tmp_path, authority.issue(), authority)
    settings = {f"MINION_{name.upper()}": str(value) for name, value in {**folder.tls(), **folder.mtls()}.items()}
    # As a deployment sets it, before gRPC is imported: it writes lines that are no JSON otherwise.
    async with started({**settings, "GRPC_VERBOSITY": "ERROR"}) as service:
        line = await service.until("serving")
        assert line["address"] == f"127.0.0.1:{service.port}"
        url = f"http://127.0.0.1:{service.operations_port}/readyz"
        told = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=60).read().decode())
        assert told == f"ready\ntls {line['address']}\nmtls {line['mtls_address']}\n"
        for _ in range(2):
            credentials = grpc.ssl_channel_credentials(
                authority.own.pem, folder.key.read_bytes(), folder.certificate.read_bytes()
            )
            for address in (line["address"], line["mtls_address"]):
                metadata = (("authorization", f"Bearer {TOKENS.mint()}"),)
                async with grpc.aio.secure_channel(address, credentials) as channel:
                    assert await _text(stub(channel).Echo(EchoRequest(text="x"), metadata=metadata, timeout=60))
            # The second round is made with what the process has taken up by itself.
            folder.hold(authority.issue())
            for _ in range(2):
                await service.until("certificates renewed")
        async with grpc.aio.insecure_channel(line["address"]) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await stub(channel).Echo(EchoRequest(), timeout=60)
        service.process.send_signal(signal.SIGTERM)
        # Each line until the end is JSON.
        await service.until("stopped")
        assert await service.ended() == 0


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        ({"MINION_AUTH_MODE": "disabled", "MINION_HOST": "0.0.0.0"}, "MINION_AUTH_MODE"),  # noqa: S104 - refused
        ({"MINION_SERVICE_KEY": ""}, "MINION_SERVICE_KEY"),
        ({"MINION_JWT_ISSUER": "https://issuer.example/"}, "MINION_JWT_AUDIENCE"),
        ({"MINION_JWT_ISSUER": "https://issuer.example/"}, "MINION_JWT_JWKS"),
    ],
)
async def test_settings_that_open_the_door_are_refused(environ: dict[str, str], fault: str) -> None:
    async with started(environ) as service:
        _, errors = await asyncio.wait_for(service.process.communicate(), 60)
        assert service.process.returncode == 2
        assert fault in errors.decode()


@pytest.mark.parametrize("variable", ["MINION_ECHO_PORT", "MINION_ECHO_OPERATIONS_PORT"])
async def test_a_taken_port_ends_it_with_1_and_one_line(variable: str) -> None:
    async with started() as first:
        await first.until("serving")
        taken = first.port if variable == "MINION_ECHO_PORT" else first.operations_port
        async with started({variable: str(taken)}) as second:
            line = await second.until("the service can't run")
            assert line["reason"] == "PORT_UNAVAILABLE"
            assert str(taken) in line["error"]
            assert await second.ended() == 1
            assert second.process.stderr is not None
            assert await second.process.stderr.read() == b""
            told = [each for each in second.lines if each["level"] in {"warning", "error"}]
            assert told == [line]


async def test_it_ends_with_its_parent() -> None:
    reading, writing = os.pipe()
    try:
        async with started({"MINION_PARENT_PIPE": str(reading)}, pass_fds=(reading,)) as service:
            await service.until("serving")
            os.close(writing)
            assert await service.ended() == 0
    finally:
        os.close(reading)


async def _text(call: Any) -> str:
    return str((await call).text)


def _begun(operations_port: int) -> float:
    """How many calls of Echo have begun; every method is counted from 0 on."""
    with urllib.request.urlopen(f"http://127.0.0.1:{operations_port}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    [line] = [line for line in lines if line.startswith("grpc_server_started_total{") and 'method="Echo"' in line]
    return float(line.rpartition(" ")[2])


def _get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - our own port
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


async def test_a_misspelt_setting_is_told_at_the_start() -> None:
    async with started({"MINION_ECHO_PAUSE_SECOND": "3", "MINION_DRAIN_SECOND": "1"}) as service:
        await service.until("serving")
    told = [(line["variable"], line["nearest"]) for line in service.lines if line["event"] == "unknown setting"]
    assert told == [
        ("MINION_DRAIN_SECOND", "MINION_DRAIN_SECONDS"),
        ("MINION_ECHO_PAUSE_SECOND", "MINION_ECHO_PAUSE_SECONDS"),
    ]
