"""What a server's disk still holds of a text: every file is read byte by byte."""

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import asyncpg

_BLOCK = 8 * 1024 * 1024


def traces(folder: Path, marks: Mapping[str, bytes]) -> dict[str, set[str]]:
    """Finds the files below a folder that hold a mark, by the mark's name.

    The server may run, and removes files when it likes: what is gone before it is read holds nothing.
    """
    found: dict[str, set[str]] = {name: set() for name in marks}
    overlap = max(len(mark) for mark in marks.values())
    for path in _files(folder):
        with suppress(FileNotFoundError), path.open("rb") as file:
            tail = b""
            while block := file.read(_BLOCK):
                for name, mark in marks.items():
                    if mark in tail + block:
                        found[name].add(str(path.relative_to(folder)))
                tail = block[-overlap:]
    return found


def _files(folder: Path) -> Iterator[Path]:
    for below, _, names in os.walk(folder):
        yield from (path for path in (Path(below, name) for name in sorted(names)) if path.is_file())


async def keep_no_log(admin_dsn: str) -> None:
    """Has the server delete the log of what it wrote, where it would write over it by and by; from the start on."""
    connection = await asyncpg.connect(admin_dsn)
    try:
        await connection.execute("ALTER SYSTEM SET wal_recycle = off")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


async def clear_away(admin_dsn: str) -> None:
    """Does at once what a server does by and by: new statistics, tables and indexes written anew, old files let go."""
    connection = await asyncpg.connect(admin_dsn)
    try:
        await _until_others_ended(connection)
        for statement in ("ANALYZE", "VACUUM (FULL)", "CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT"):
            await connection.execute(statement)
    finally:
        await connection.close()


async def _until_others_ended(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Waits for what others had begun by now: what was there then is kept, as long as one of them may look at it."""
    begun = await connection.fetchval("SELECT clock_timestamp()")
    async with asyncio.timeout(60):
        while True:
            others = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < $1",
                begun,
            )
            if others == 0:
                return
            await asyncio.sleep(0.01)
