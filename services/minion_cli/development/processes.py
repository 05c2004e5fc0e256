"""All five services as a process each, ending with this one however it ends."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from minion_errors import Unavailable

from minion_cli.development.directory import Directory
from minion_cli.development.ports import Ports

# Who is called stands before who calls: they stop in the opposite order.
_ORDER: Final = ("registry", "session", "activity", "memory", "gateway")
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0
_PAUSE: Final = 0.05
_WATCH_SECONDS: Final = 0.5
_LAST_LINES: Final = 3


@dataclass(frozen=True, slots=True)
class Child:
    """One service's process, and where its log goes."""

    service: str
    process: subprocess.Popen[bytes]
    log: Path


async def first_end(children: Sequence[Child]) -> Child:
    """Waits until one of the processes has ended, and gives it."""
    while True:
        for child in children:
            if child.process.poll() is not None:
                return child
        await asyncio.sleep(_WATCH_SECONDS)


@asynccontextmanager
async def serving(
    environ: Mapping[str, str], ports: Mapping[str, Ports], directory: Directory
) -> AsyncIterator[Sequence[Child]]:
    """Runs the services for a block and drains them after it; gives their processes.

    Their logs go to a file each. Raises Unavailable when one ends before it serves, with the end of its log.
    """
    # Every child holds the reading end; the writing end is ours alone and closes when we end, killed or not.
    reading, writing = os.pipe()
    children: list[Child] = []
    try:
        for service in _ORDER:
            log = directory.logs / f"{service}.log"
            with log.open("wb") as file:
                children.append(Child(service, _start(service, environ, reading, file), log))
        await _until_serving(children, ports)
        yield children
    finally:
        await asyncio.to_thread(_stop, children)
        os.close(writing)
        os.close(reading)


def _start(service: str, environ: Mapping[str, str], pipe: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", f"minion_{service}"],
        env={**environ, "MINION_PARENT_PIPE": str(pipe), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=(pipe,),
        # A Ctrl-C in the terminal is for us: we stop them in their order.
        start_new_session=True,
    )


async def _until_serving(children: Sequence[Child], ports: Mapping[str, Ports]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    for child in children:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ports[child.service].rpc}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while not await _serves(stub):
                if child.process.poll() is not None or time.monotonic() > deadline:
                    raise Unavailable(
                        f"The service {child.service} does not start: {_end_of(child.log)}", reason="SERVICE_FAILED"
                    )
                await asyncio.sleep(_PAUSE)


async def _serves(stub: health_pb2_grpc.HealthStub) -> bool:
    with contextlib.suppress(grpc.aio.AioRpcError):
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=2)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
    return False


def _stop(children: Sequence[Child]) -> None:
    for child in reversed(children):
        if child.process.poll() is None:
            child.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(_STOP_SECONDS)
        if child.process.poll() is None:
            child.process.kill()
            child.process.wait()


def _end_of(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-_LAST_LINES:]) or "it says nothing"
