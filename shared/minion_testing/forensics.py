"""What a server's disk still holds of a text: every file is read byte by byte."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import asyncpg

# Those who began to look at the tables before some transaction. The server is young: its ids of transactions are small.
_LOOKING = """
    SELECT count(*) FROM pg_stat_activity, pg_sleep(0.01)
     WHERE pid <> pg_backend_pid() AND backend_xmin::text::bigint < $1
"""
_LOOKING_SECONDS = 60.0
_BLOCK = 8 * 1024 * 1024


def traces(folder: Path, marks: Mapping[str, bytes]) -> dict[str, set[str]]:
    """Finds the files below a folder that hold a mark, by the mark's name."""
    found: dict[str, set[str]] = {name: set() for name in marks}
    overlap = max(len(mark) for mark in marks.values())
    for path in sorted(folder.rglob("*")):
        # The server lives: a file of its own that was there a moment ago may be gone by now.
        with suppress(FileNotFoundError):
            if not path.is_file():
                continue
            with path.open("rb") as file:
                tail = b""
                while block := file.read(_BLOCK):
                    for name, mark in marks.items():
                        if mark in tail + block:
                            found[name].add(str(path.relative_to(folder)))
                    tail = block[-overlap:]
    return found


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
        # A row that was deleted is written anew with the others while somebody may still see it: a statement of a
        # service's own, or an ANALYZE of the server's, that began before.
        now = int(await connection.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))
        async with asyncio.timeout(_LOOKING_SECONDS):
            while await connection.fetchval(_LOOKING, now):
                pass
        for statement in ("ANALYZE", "VACUUM (FULL)", "CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT"):
            await connection.execute(statement)
    finally:
        await connection.close()
