"""Connections of a pool, lent from hand to hand."""

import asyncio
from contextlib import suppress
from time import perf_counter

import asyncpg

from minion_postgres.driver import Pool, PooledConnection
from minion_postgres.metrics import PoolMetrics

# How long a connection that nobody asks for is kept, before the pool has it back and counts its idle time.
_KEPT_SECONDS = 1.0


class Lender:
    """Lends a pool's connections, and keeps one that comes back in order for whoever asks next.

    To take a connection out of asyncpg's pool and to give it back costs twice what a small statement does: a task, a
    shield, two limits of time. The pool still opens, counts, ages, checks and closes them. While anybody waits at the
    pool, nothing is kept back: there is never a connection here that somebody there could have.
    """

    def __init__(self, pool: Pool, *, acquire_seconds: float, metrics: PoolMetrics | None = None) -> None:
        self._pool = pool
        self._acquire_seconds = acquire_seconds
        self._metrics = metrics or PoolMetrics(pool.get_max_size())
        self._kept: list[PooledConnection] = []
        # Each connection that is lent, and the age in which it was: one of an earlier age isn't kept.
        self._lent: dict[PooledConnection, int] = {}
        self._metrics.lent = self._lent
        # How many wait at the pool.
        self._asking = 0
        self._age = 0
        self._timer: asyncio.TimerHandle | None = None
        self._returning: set[asyncio.Task[None]] = set()
        self._closing = False

    async def lend(self) -> PooledConnection:
        """Gives a connection, the one used last where there is one; raises what the pool raises."""
        while self._kept:
            connection = self._kept.pop()
            if not is_closed(connection):
                self._lent[connection] = self._age
                self._metrics.waits.observe_none()
                return connection
            await self.give_back(connection)
        age, asked = self._age, perf_counter()
        self._asking += 1
        self._metrics.pending += 1
        try:
            connection = await self._pool.acquire(timeout=self._acquire_seconds)
        except TimeoutError:
            self._metrics.timeouts += 1
            raise
        finally:
            self._asking -= 1
            self._metrics.pending -= 1
        self._metrics.waits.observe(perf_counter() - asked)
        self._lent[connection] = age
        return connection

    async def take_back(self, connection: PooledConnection) -> None:
        """Takes a connection whose last statement went well: nobody may hold on to it."""
        is_old = self._lent.get(connection) != self._age
        if is_old or self._asking or self._closing or is_closed(connection) or connection.is_in_transaction():
            await self.give_back(connection)
            return
        del self._lent[connection]
        self._kept.append(connection)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_KEPT_SECONDS, self._time_is_up)

    async def give_back(self, connection: PooledConnection) -> None:
        """Gives a connection back to the pool, in whatever state."""
        self._lent.pop(connection, None)
        # One that can't be given back in order is cut by asyncpg; the outcome of its statement stands.
        with suppress(
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError
        ):
            await self._pool.release(connection)

    def expire(self) -> None:
        """Has the pool have every connection back, kept or lent, once the one who has it is done with it."""
        self._age += 1
        self._return_kept()

    async def close(self) -> None:
        """Gives back what is kept, and keeps nothing from now on."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        await self._give_kept_back()

    def _time_is_up(self) -> None:
        # All of them, those in use a moment ago as well: the pool looks at how much each has been used.
        self._timer = None
        self._return_kept()

    def _return_kept(self) -> None:
        # In a task of its own: whoever found the fault may go away, and what was taken out must arrive.
        task = asyncio.get_running_loop().create_task(self._give_kept_back())
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def _give_kept_back(self) -> None:
        kept, self._kept = self._kept, []
        await asyncio.gather(*(self.give_back(connection) for connection in kept))


def is_closed(connection: PooledConnection) -> bool:
    """Tells whether a connection was lost."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        # The pool takes a connection back the moment it is lost, and its proxy answers nothing any more.
        return True
