"""asyncpg's types, and a single connection outside any pool."""

from typing import TYPE_CHECKING

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from minion_postgres import dsn as dsns
from minion_postgres import faults

Record = asyncpg.Record
if TYPE_CHECKING:
    # Generic in their stubs alone.
    Connection = asyncpg.Connection[Record]
    PooledConnection = PoolConnectionProxy[Record]
    Pool = asyncpg.Pool[Record]
else:
    Connection = asyncpg.Connection
    PooledConnection = PoolConnectionProxy
    Pool = asyncpg.Pool


async def connect(dsn: str, application: str) -> Connection:
    """Opens one connection, with no limit on its statements. Raises Unavailable, which says where."""
    try:
        return await asyncpg.connect(
            dsn,
            timeout=10,
            server_settings={"application_name": application, "statement_timeout": "0", "client_min_messages": "error"},
        )
    except Exception as error:
        translated = faults.while_connecting(error, dsns.parse(dsn).place)
        if translated is None:
            raise
        raise translated from error
