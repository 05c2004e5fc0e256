"""The fake provider as OpenAI's own client sees it, in process and as a process."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from minion_testing.fake_provider import FakeProvider
from minion_testing.provider_ledger import read_ledger
from minion_testing.provider_script import Fault, FaultKind, Reply, Script


@asynccontextmanager
async def client_at(base_url: str, key: str = "any") -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0) as client:
        yield client


async def asked_of(session: aiohttp.ClientSession, root: str) -> list[dict[str, Any]]:
    """Gives the ledger of a provider's process."""
    async with session.get(f"{root}/control/ledger") as response:
        asked: list[dict[str, Any]] = await response.json()
    return asked


async def test_the_sdk_reads_its_answers() -> None:
    async with FakeProvider() as fake, client_at(fake.base_url) as client:
        answer = await client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": "hello"}],
            extra_headers={"minion-attempt": "a:1"},
        )
        assert answer.choices[0].message.content == "echo: hello"
        assert answer.usage is not None
        assert answer.usage.total_tokens > 0
        assert [model.id async for model in client.models.list()]
        embeddings = await client.embeddings.create(model="text-embedding-3-small", input=["a", "b"], dimensions=8)
        assert [len(item.embedding) for item in embeddings.data] == [8, 8]
        assert fake.ledger.attempts == ["a:1", ""]


async def test_the_sdk_reads_its_streams() -> None:
    async with FakeProvider() as fake, client_at(fake.base_url) as client:
        fake.push(Reply("x" * 100, chunks=32), Reply(tool_calls=(("clock", '{"a": 1}'),)))
        chunks = []
        for _ in range(2):
            stream = await client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": "hi"}],
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks.append([chunk async for chunk in stream])
        texts = [chunk.choices[0].delta.content for chunk in chunks[0] if chunk.choices]
        assert len([text for text in texts if text]) == 32
        assert chunks[0][-1].usage is not None
        calls = [chunk.choices[0].delta.tool_calls for chunk in chunks[1] if chunk.choices]
        assert "".join(call[0].function.arguments or "" for call in calls if call and call[0].function) == '{"a": 1}'


async def test_a_wrong_key_is_refused() -> None:
    async with FakeProvider(api_key="right") as fake, client_at(fake.base_url, "wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


async def test_scripts_serve_whom_they_are_for() -> None:
    async with FakeProvider() as fake, client_at(fake.base_url) as client:
        fake.push(Script(Reply("rain"), match="weather", times=2), Reply("first"))
        said = []
        for text in ("hello", "the weather?", "hello", "weather", "weather"):
            answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])
            said.append(answer.choices[0].message.content)
        assert said == ["first", "rain", "echo: hello", "rain", "echo: weather"]


async def test_a_stall_is_released() -> None:
    async with FakeProvider() as fake, client_at(fake.base_url) as client:
        fake.push(Fault(FaultKind.STALL, seconds=0.05))
        answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        assert answer.choices[0].message.content == "echo: hi"


async def test_a_process_of_its_own_takes_scripts_and_keeps_its_ledger(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    process = await create_subprocess_exec(
        sys.executable,
        "-m",
        "minion_testing.fake_provider",
        "--ledger",
        str(ledger),
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdout is not None
        base_url = (await process.stdout.readline()).decode().strip()
        scripts = [
            {"reply": {"text": "scripted", "tool_calls": [["clock", {"zone": "UTC"}]]}},
            {"fault": {"kind": "rate_limited", "seconds": 3}},
            {"fault": {"kind": "stall"}},
        ]
        root = base_url.removesuffix("/v1")
        async with aiohttp.ClientSession() as session, client_at(base_url) as client:
            async with session.post(f"{root}/control/script", json=scripts) as response:
                assert await response.json() == {"waiting": 3}
            answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "1"}])
            assert answer.choices[0].message.content == "scripted"
            with pytest.raises(openai.RateLimitError) as limited:
                await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "2"}])
            assert limited.value.response.headers["retry-after"] == "3"
            stalled = asyncio.create_task(
                client.chat.completions.create(model="m", messages=[{"role": "user", "content": "3"}])
            )
            # A client that went before the provider has read its request would leave nothing in the ledger.
            async with asyncio.timeout(60):
                while not (asked := await asked_of(session, root))[2:]:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.02)
            assert [record["outcome"] for record in asked] == ["completed", "fault", "open"]
            stalled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stalled
    finally:
        process.kill()
        await process.wait()
    records = read_ledger(ledger)
    assert [record["body"]["messages"][0]["content"] for record in records] == ["1", "2", "3"]
    assert [record["outcome"] for record in records[:2]] == ["completed", "fault"]
    assert "authorization" not in records[0]
