"""The fault proxy: it carries, and fails on command."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from minion_testing.fault_proxy import FaultProxy, Mode


@asynccontextmanager
async def echoing() -> AsyncIterator[FaultProxy]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1024):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        async with FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
            yield proxy
    finally:
        server.close()
        await server.wait_closed()


async def ask(proxy: FaultProxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"ping")
    return reader, writer


async def test_it_carries_both_ways() -> None:
    async with echoing() as proxy:
        reader, writer = await ask(proxy)
        assert await reader.readexactly(4) == b"ping"
        assert (proxy.accepted, proxy.open_connections) == (1, 1)
        writer.close()
        assert await reader.read() == b""


async def test_a_cut_resets_what_is_open_and_takes_new_ones() -> None:
    async with echoing() as proxy:
        reader, writer = await ask(proxy)
        await reader.readexactly(4)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
        reader, writer = await ask(proxy)
        assert await reader.readexactly(4) == b"ping"
        writer.close()


async def test_a_stall_holds_bytes_back_and_gives_them_later() -> None:
    async with echoing() as proxy:
        proxy.set_mode(Mode.STALL)
        reader, writer = await ask(proxy)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(4), 0.1)
        proxy.set_mode(Mode.PASS)
        assert await reader.readexactly(4) == b"ping"
        writer.close()


async def test_a_refusal_resets_new_connections() -> None:
    async with echoing() as proxy:
        proxy.set_mode(Mode.REFUSE)
        reader, writer = await ask(proxy)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
        assert proxy.accepted == 0


async def test_a_delay_is_added() -> None:
    async with echoing() as proxy:
        proxy.delay = 0.05
        begun = asyncio.get_running_loop().time()
        reader, writer = await ask(proxy)
        await reader.readexactly(4)
        assert asyncio.get_running_loop().time() - begun >= 0.1
        writer.close()
