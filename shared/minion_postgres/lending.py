"""Connections of a pool, lent from hand to hand."""

import asyncio
from contextlib import suppress

import asyncpg

from minion_postgres.driver import Pool, PooledConnection

# How long a connection that nobody asks for is kept, before the pool has it back and counts its idle time.
_KEPT_SECONDS = 1.0


class Lender:
    """Lends a pool's connections, and keeps one that comes back in order for whoever asks next.

    To take a connection out of asyncpg's pool and to give it back costs twice what a small statement does: a task, a
    shield, two limits of time. The pool still opens, counts, ages, checks and closes them. While anybody waits at the
    pool, nothing is kept back: there is never a connection here that somebody there could have.
    """

    def __init__(self, pool: Pool, *, acquire_seconds: float) -> None:
        self._pool = pool
        self._acquire_seconds = acquire_seconds
        self._kept: list[PooledConnection] = []
        self._asking = 0
        self._timer: asyncio.TimerHandle | None = None
        self._returning: asyncio.Task[None] | None = None
        self._closing = False

    async def lend(self) -> PooledConnection:
        """Gives a connection, the one used last where there is one; raises what the pool raises."""
        while self._kept:
            connection = self._kept.pop()
            if not is_closed(connection):
                return connection
            await self.give_back(connection)
        self._asking += 1
        try:
            return await self._pool.acquire(timeout=self._acquire_seconds)
        finally:
            self._asking -= 1

    async def take_back(self, connection: PooledConnection) -> None:
        """Takes a connection whose last statement went well: nobody may hold on to it."""
        if self._asking or self._closing or is_closed(connection) or connection.is_in_transaction():
            await self.give_back(connection)
            return
        self._kept.append(connection)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_KEPT_SECONDS, self._time_is_up)

    async def give_back(self, connection: PooledConnection) -> None:
        """Gives a connection back to the pool, in whatever state."""
        # One that can't be given back in order is cut by asyncpg; the outcome of its statement stands.
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await self._pool.release(connection)

    async def give_all_back(self) -> None:
        """Gives back what is kept."""
        kept, self._kept = self._kept, []
        for connection in kept:
            await self.give_back(connection)

    async def close(self) -> None:
        """Gives back what is kept, and keeps nothing from now on."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        await self.give_all_back()

    def _time_is_up(self) -> None:
        # All of them, those in use a moment ago as well: the pool looks at how much each has been used.
        self._timer = None
        self._returning = asyncio.get_running_loop().create_task(self.give_all_back())


def is_closed(connection: PooledConnection) -> bool:
    """Tells whether a connection was lost."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        # The pool takes a connection back the moment it is lost, and its proxy answers nothing any more.
        return True
