"""The frozen bill of a plain turn: what its calls, commits and reads cost with nothing around them.

From one client process: 5 unary echoes of 1 KiB (one of them a stream of one event), 6 single-statement commits that
insert one row of 500 B, 3 reads of 20 rows, 1 vector search in 1,000 rows of one scope (concurrent with an echo and a
commit), 1 provider call by the openai client with 2 messages; no embedding. `python -m benchmarks.bill` is the echo
server; it prints its port.
"""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import grpc
import openai
import uvloop
from pgvector import Vector
from pgvector.asyncpg import register_vector

_SERVICE = "minion.bench.Echo"
_MESSAGE = os.urandom(1024)
_ROW = "x" * 500
_DIMENSIONS = 384
_CONNECTIONS = 16

_TABLES = """
CREATE TABLE rows (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL);
CREATE TABLE messages (session int, sequence int, body text NOT NULL, PRIMARY KEY (session, sequence));
INSERT INTO messages SELECT s, n, repeat('m', 200) FROM generate_series(1, 50) s, generate_series(1, 20) n;
CREATE TABLE vectors (scope int, id int, embedding vector(384) NOT NULL, PRIMARY KEY (scope, id));
"""
_INSERT = "INSERT INTO rows (body) VALUES ($1) RETURNING id"
_READ = "SELECT sequence, body FROM messages WHERE session = $1 ORDER BY sequence LIMIT 20"
# The parameter is a vector on the wire. Cast from text it would be parsed again for each row of a generic plan, and the
# yardstick be slower by 50 ms than what anybody would write.
_SEARCH = "SELECT id FROM vectors WHERE scope = 1 ORDER BY embedding <=> $1 LIMIT 5"


class Bill:
    """The yardstick's client; `pay` is one bill."""

    def __init__(
        self, pool: "asyncpg.Pool[asyncpg.Record]", channel: grpc.aio.Channel, model: openai.AsyncOpenAI
    ) -> None:
        self._pool = pool
        self._echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{_SERVICE}/Unary")
        self._stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"/{_SERVICE}/Stream")
        self._model = model
        self._vector = _vector()

    async def pay(self) -> object:
        """Does all of it once, in the order of a turn."""
        async for _ in self._stream(_MESSAGE):
            pass
        await self._commit()
        await asyncio.gather(self._pool.fetch(_SEARCH, self._vector), self._begin())
        await self._read()
        await self._commit()
        await self._model.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}],
        )
        await self._commit()
        await self._echo(_MESSAGE)
        await self._commit()
        await self._read()
        await self._echo(_MESSAGE)
        await self._commit()
        await self._read()
        return await self._echo(_MESSAGE)

    async def _begin(self) -> None:
        await self._echo(_MESSAGE)
        await self._commit()

    async def _commit(self) -> None:
        await self._pool.fetchval(_INSERT, _ROW)

    async def _read(self) -> None:
        await self._pool.fetch(_READ, random.randint(1, 50))


@asynccontextmanager
async def billing(dsn: str, provider: str) -> AsyncIterator[tuple[Bill, int]]:
    """Prepares an empty database with pgvector and runs the echo server; gives the client and the server's pid."""
    async with AsyncExitStack() as held:
        pool = await asyncpg.create_pool(
            dsn, min_size=_CONNECTIONS, max_size=_CONNECTIONS, init=register_vector, server_settings={"jit": "off"}
        )
        held.push_async_callback(pool.close)
        await pool.execute(_TABLES)
        await pool.executemany(
            "INSERT INTO vectors VALUES ($1, $2, $3)", [(1, number, _vector()) for number in range(1_000)]
        )
        await pool.execute("ANALYZE")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.bill", stdout=asyncio.subprocess.PIPE
        )
        held.callback(process.terminate)
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        channel = await held.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        model = await held.enter_async_context(openai.AsyncOpenAI(api_key="sk-bench", base_url=provider))
        yield Bill(pool, channel, model), process.pid


def _vector() -> Vector:
    return Vector([random.random() for _ in range(_DIMENSIONS)])


async def _serve() -> None:
    async def unary(request: bytes, context: object) -> bytes:
        return request

    async def stream(request: bytes, context: object) -> AsyncIterator[bytes]:
        yield request

    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
