"""What a server's disk still holds of a text: every file is read byte by byte."""

from collections.abc import Mapping
from pathlib import Path

import asyncpg

_BLOCK = 8 * 1024 * 1024


def traces(folder: Path, marks: Mapping[str, bytes]) -> dict[str, set[str]]:
    """Finds the files below a folder that hold a mark, by the mark's name."""
    found: dict[str, set[str]] = {name: set() for name in marks}
    overlap = max(len(mark) for mark in marks.values())
    for path in sorted(folder.rglob("*")):
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


async def clear_away(admin_dsn: str) -> None:
    """Does what makes deleted rows vanish from a disk, where it would happen by and by.

    New statistics; every table and index written anew; old files let go, the log of what was written too, which is
    otherwise overwritten as the next is written.
    """
    connection = await asyncpg.connect(admin_dsn)
    try:
        await connection.execute("ALTER SYSTEM SET wal_recycle = off")
        await connection.execute("SELECT pg_reload_conf()")
        for statement in ("ANALYZE", "VACUUM (FULL)", "CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT"):
            await connection.execute(statement)
    finally:
        await connection.close()
