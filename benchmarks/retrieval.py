"""Retrieval quality: `make bench-retrieval DATA=FILE OUT=run.jsonl`, or `python -m benchmarks.retrieval FILE OUT`.

Stores each conversation of a data set as memories of one agent and user, a turn a memory, and searches with the text of
each question, through the memory service and the gateway over gRPC, a process each, with the local embedding model. The
ranking goes to OUT, one JSON object a question, for the data set's own scorer; nothing reads which turns are right.

The file is a JSON object: {"name": str, "conversations": [{"id": str,
"items": [{"id": str, "session": int, "turn": int, "time": "2023-05-08T13:56", "speaker": str, "text": str,
"caption"?: str}], "queries": [{"id": str, "text": str}]}]}. An item's caption tells what a picture shows that was sent
along.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
from minion.memory.v1 import memory_pb2, memory_service_pb2
from minion.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from minion_auth import ServiceTokens
from minion_testing.postgres import cluster
from minion_testing.serving import SERVICE_KEY
from uuid_utils.compat import uuid7

from benchmarks.serving import serving

_USER = "reader"
_RANKED = 20
_BATCH = 100
_WHERE_FROM = """\
bench-retrieval needs a data set: make bench-retrieval DATA=FILE OUT=run.jsonl

LoCoMo's long conversations are one (https://github.com/snap-research/locomo, CC BY-NC 4.0: to measure with, never to
ship). The form that is read stands at the top of benchmarks/retrieval.py."""

Item = Mapping[str, Any]


async def run(data: Path, out: Path) -> Sequence[float]:
    """Writes the ranking of every question; gives the seconds that each search took."""
    conversations = json.loads(await asyncio.to_thread(data.read_text, encoding="utf-8"))["conversations"]
    tenant_id = uuid7()
    lines: list[str] = []
    seconds: list[float] = []
    async with AsyncExitStack() as running:
        served = await running.enter_async_context(cluster(durable=True))
        services = await running.enter_async_context(serving(await served.clone(), "gateway", "memory"))
        channel = await running.enter_async_context(grpc.aio.insecure_channel(services["memory"].address))
        memories = _Memories(channel, tenant_id)
        for conversation in conversations:
            agent_id = str(uuid7())
            await memories.store(agent_id, conversation["items"])
            for query in conversation["queries"]:
                before = time.perf_counter()
                ranked = await memories.search(agent_id, query["text"])
                seconds.append(time.perf_counter() - before)
                lines.append(json.dumps({"id": query["id"], "ranked": ranked}) + "\n")
    await asyncio.to_thread(out.write_text, "".join(lines), encoding="utf-8")
    return seconds


class _Memories:
    """The memory service, as a tenant's caller sees it."""

    def __init__(self, channel: grpc.aio.Channel, tenant_id: UUID) -> None:
        self._stub: Any = MemoryServiceStub(channel)
        self._tokens = ServiceTokens(SERVICE_KEY, "gateway")
        self._tenant_id = tenant_id

    async def store(self, agent_id: str, items: Sequence[Item]) -> None:
        """Stores turns, each under its own id as the key."""
        sessions = {number: str(uuid7()) for number in sorted({item["session"] for item in items})}
        new = [
            memory_service_pb2.NewMemory(memory=_memory(agent_id, item, sessions[item["session"]])) for item in items
        ]
        for start in range(0, len(new), _BATCH):
            request = memory_service_pb2.StoreMemoriesRequest(memories=new[start : start + _BATCH])
            stored = await self._stub.StoreMemories(request, metadata=self._credential())
            if any(not result.memory.embedding_model for result in stored.results):
                raise RuntimeError("the gateway made no vectors: the run would measure words alone")

    async def search(self, agent_id: str, text: str) -> list[str]:
        """Gives the ids of the items found, best first."""
        request = memory_service_pb2.SearchMemoriesRequest(agent_id=agent_id, user_id=_USER, query=text, limit=_RANKED)
        found = await self._stub.SearchMemories(request, metadata=self._credential())
        if found.plan == memory_pb2.SEARCH_PLAN_LEXICAL:
            raise RuntimeError("the gateway made no vector of a question: the run would measure words alone")
        return [hit.memory.key for hit in found.hits]

    def _credential(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._tokens.mint(self._tenant_id)}"),)


def _memory(agent_id: str, item: Item, session_id: str) -> memory_pb2.Memory:
    said = item["text"]
    if item.get("caption"):
        said = f"{said} [{item['caption']}]"
    memory = memory_pb2.Memory(
        agent_id=agent_id,
        user_id=_USER,
        key=item["id"],
        type=memory_pb2.MEMORY_TYPE_CONTEXT,
        content=said,
        speaker=item["speaker"],
        labels={"minion.episode": "true"},
        source=memory_pb2.MemorySource(session_id=session_id, message_sequences=[item["turn"]]),
    )
    memory.occur_time.FromDatetime(datetime.fromisoformat(item["time"]).replace(tzinfo=UTC))
    return memory


def main(arguments: Iterable[str]) -> int:
    """Runs what was asked for and returns the exit code: 2 without a data set."""
    parser = argparse.ArgumentParser(prog="benchmarks.retrieval", description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="the data set")
    parser.add_argument("out", type=Path, nargs="?", default=Path("run.jsonl"), help="where the ranking goes")
    given = parser.parse_args(list(arguments))
    if given.data is None or not given.data.is_file():
        print(
            _WHERE_FROM if given.data is None else f"There is no file {given.data}.\n\n{_WHERE_FROM}", file=sys.stderr
        )
        return 2
    seconds = sorted(asyncio.run(run(given.data, given.out)))
    p50, p95 = statistics.median(seconds) * 1e3, seconds[int(0.95 * (len(seconds) - 1))] * 1e3
    print(f"{len(seconds)} searches for {_RANKED} memories, embedding included: p50 {p50:.1f} ms, p95 {p95:.1f} ms")
    print(f"ranking: {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
