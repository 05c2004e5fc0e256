import asyncio
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PROGRAM = """
import asyncio, os, sys
from minion_cli.development.command import run_until_signal

async def main():
    try:
        print("up", flush=True)
        await asyncio.Event().wait()
    finally:
        print("down", flush=True)
        if sys.argv[1] == "hangs":
            await asyncio.Event().wait()

run_until_signal(main(), os.environ)
"""


async def _start(kind: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        kind,
        cwd=ROOT,
        env={"PYTHONPATH": "services:shared", "PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"up\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_unwinds_what_is_open(number: signal.Signals) -> None:
    process = await _start("ends")
    process.send_signal(number)
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (out, process.returncode) == (b"down\n", 0)


async def test_a_second_signal_ends_what_hangs() -> None:
    process = await _start("hangs")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"down\n"
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 60) == 130
