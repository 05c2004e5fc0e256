"""What is heavy is loaded late, and never on the event loop."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from pathlib import Path

import pytest

# The model is made and loaded here.
pytestmark = pytest.mark.slow

LIGHT = """
import sys
import minion_gateway.inference.composition
heavy = {"openai", "httpx2", "aiohttp", "onnx", "onnxruntime", "tokenizers", "numpy", "genai_prices", "stamina"}
print(sorted(heavy & set(sys.modules)))
"""

STARTED = """
import asyncio, sys, time
from pathlib import Path
from minion_telemetry import Telemetry
from minion_telemetry.settings import TelemetrySettings
from minion_gateway.inference.composition import build
from minion_gateway.inference.domain import ChatMessage, CompletionRequest, Role
from minion_gateway.inference.settings import InferenceSettings
from minion_testing.fake_provider import FakeProvider

async def main():
    async with FakeProvider() as fake:
        settings = InferenceSettings(openai_base_url=fake.base_url, model_cache=Path(sys.argv[1]))
        inference = build(settings, Telemetry.start("gateway", TelemetrySettings()))
        await inference.start()
        worst = 0.0
        async def watch():
            nonlocal worst
            while True:
                # Of the loop's own thread: a busy machine makes it wait, which is no stall.
                begun = time.thread_time()
                await asyncio.sleep(0.001)
                worst = max(worst, time.thread_time() - begun)
        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        await inference.complete(CompletionRequest("", (ChatMessage(Role.USER, "hello"),)))
        await inference.embed(["hello"])
        watching.cancel()
        await inference.close()
        print(f"{worst:.3f} {'onnx' in sys.modules}")

asyncio.run(main())
"""


async def _run(script: str, *arguments: str) -> str:
    process = await create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        *arguments,
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0
    return output.decode().strip()


async def test_composing_the_models_imports_nothing_heavy() -> None:
    assert await _run(LIGHT) == "[]"


async def test_a_first_call_after_the_start_stalls_nothing(tmp_path: Path) -> None:
    stalled, onnx = (await _run(STARTED, str(tmp_path))).split()
    assert float(stalled) < 0.05
    # The build ran elsewhere.
    assert onnx == "False"
