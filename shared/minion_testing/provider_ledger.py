"""The fake provider's ledger: what it was asked, by whom, and how each request ended."""

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson


@dataclass(slots=True)
class Asked:
    """One request as the provider saw it; `outcome` is `open` until it was answered, failed or abandoned.

    Outcomes: `completed`, `fault`, `client_gone`. Times are seconds of the provider's monotonic clock.
    """

    id: int
    path: str
    model: str
    attempt: str
    idempotency_key: str
    authorization: str
    streamed: bool
    body: dict[str, Any]
    received_at: float
    ended_at: float | None = None
    outcome: str = "open"
    status: int = 0
    chunks_sent: int = 0


@dataclass(slots=True)
class Ledger:
    """Everything that was asked. With a file, each line is on disk before the provider acts on it."""

    path: Path | None = None
    asked: list[Asked] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self, path: str, headers: Mapping[str, str], body: dict[str, Any]) -> Asked:
        """Writes down a request that has just come."""
        asked = Asked(
            id=len(self.asked) + 1,
            path=path,
            model=str(body.get("model", "")),
            attempt=headers.get("minion-attempt", ""),
            idempotency_key=headers.get("idempotency-key", ""),
            authorization=headers.get("authorization", ""),
            streamed=bool(body.get("stream")),
            body=body,
            received_at=time.monotonic(),
        )
        self.asked.append(asked)
        self._write("received", asked)
        return asked

    def close(self, asked: Asked, outcome: str, status: int) -> None:
        """Writes down how a request ended; the first end counts."""
        if asked.outcome != "open":
            return
        asked.outcome, asked.status, asked.ended_at = outcome, status, time.monotonic()
        self._write("ended", asked)

    async def until(self, count: int, *, ended: bool = False, seconds: float = 60.0) -> list[Asked]:
        """Waits for `count` requests to have come (or to have ended) and returns all."""
        async with asyncio.timeout(seconds):
            while sum(1 for asked in self.asked if not ended or asked.outcome != "open") < count:
                self._changed.clear()
                await self._changed.wait()
        return self.asked

    @property
    def attempts(self) -> list[str]:
        """The `minion-attempt` of each request, in order of arrival."""
        return [asked.attempt for asked in self.asked]

    def _write(self, event: str, asked: Asked) -> None:
        self._changed.set()
        if self.path is None:
            return
        record = {"event": event, "wall_time": time.time(), **public(asked)}
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, line)
            os.fsync(file)
        finally:
            os.close(file)


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """Reads a ledger file: one record a request, with its end where it was written; a torn last line is left out."""
    records: dict[int, dict[str, Any]] = {}
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with suppress(orjson.JSONDecodeError):
            record = orjson.loads(line)
            records[record["id"]] = records.get(record["id"], {}) | record
    return list(records.values())


def public(asked: Asked) -> dict[str, Any]:
    """The record without the key it came with."""
    record = asdict(asked)
    del record["authorization"]
    return record
