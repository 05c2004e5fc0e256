"""Memories as files: what `minion memories import` takes, and what it says of what it doesn't."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from minion.memory.v1 import memory_service_pb2 as pb
from minion_cli import memory_changes
from minion_cli.__main__ import run

LINE = b'{"memory": {"content": "Tea."}}'


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[pb.NewMemory]:
    """What reaches the memory service."""
    found: list[pb.NewMemory] = []

    async def take_in(requests: AsyncIterator[pb.ImportMemoriesRequest]) -> pb.ImportMemoriesResponse:
        found.extend([request.memory async for request in requests])
        return pb.ImportMemoriesResponse(created_count=len(found))

    def call(work: Callable[[Any], Awaitable[object]]) -> object:
        async def main() -> object:
            return await work(SimpleNamespace(memories=SimpleNamespace(ImportMemories=take_in)))

        return asyncio.run(main())

    monkeypatch.setattr(memory_changes, "call", call)
    return found


@pytest.mark.parametrize(
    "line",
    [b"5", b"null", b"[]", b'"memory"', b"\xff\xfe", b"[" * 100_000, b'{"memory": 5}', b"nonsense"],
    ids=lambda line: repr(line[:20]),
)
def test_a_line_that_holds_no_memory_is_named(
    sent: list[pb.NewMemory], tmp_path: Path, capsys: pytest.CaptureFixture[str], line: bytes
) -> None:
    file = tmp_path / "memories.jsonl"
    file.write_bytes(LINE + b"\n\n" + line + b"\n")
    assert run(["memories", "import", str(file)]) == 2
    assert "line 3 of" in capsys.readouterr().err
    assert sent == []


def test_a_directory_holds_no_memories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["memories", "import", str(tmp_path)]) == 2
    assert "is a directory" in capsys.readouterr().err


def test_a_file_and_a_pipe_are_taken_alike(sent: list[pb.NewMemory], tmp_path: Path) -> None:
    file, pipe = tmp_path / "memories.jsonl", tmp_path / "pipe"
    file.write_bytes(LINE + b"\r\n" + LINE)
    os.mkfifo(pipe)
    writer = Thread(target=lambda: pipe.write_bytes(file.read_bytes()))
    writer.start()
    for source in (file, pipe):
        assert run(["memories", "import", str(source)]) == 0
    writer.join()
    assert [memory.memory.content for memory in sent] == ["Tea."] * 4
