"""A TCP proxy that fails on command: it stands between two processes and cuts, stalls, delays or refuses."""

import asyncio
import enum
import struct
from contextlib import suppress
from socket import SO_LINGER, SOL_SOCKET
from socket import socket as Socket  # noqa: N812 - a class with a function's name
from typing import Self


def reset(transport: asyncio.BaseTransport) -> None:
    """Ends a connection by a reset, as a dying host does, and not by an orderly close."""
    socket: Socket | None = transport.get_extra_info("socket")
    if socket is not None and socket.fileno() >= 0:
        # A linger of 0 seconds makes the close a reset (RFC 9293, 3.10.5 ABORT).
        socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


class Mode(enum.Enum):
    """What happens to bytes and to new connections."""

    PASS = "pass"
    STALL = "stall"  # connections stay open and carry nothing until the mode changes
    REFUSE = "refuse"  # new connections are reset


class FaultProxy:
    """Listens on a free loopback port and carries bytes to the target, as `mode` allows.

    `delay` seconds are added to each piece in each direction. Bytes held back by STALL are delivered afterwards.
    """

    def __init__(self, host: str, port: int, *, listen_port: int = 0) -> None:
        self.delay = 0.0
        self.accepted = 0
        self._target = (host, port)
        self._port = listen_port
        self._mode = Mode.PASS
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    @property
    def address(self) -> str:
        """Where it listens, as `127.0.0.1:<port>`."""
        return f"127.0.0.1:{self._port}"

    @property
    def open_connections(self) -> int:
        """Connections it carries now."""
        return len(self._tasks)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        if self._server is not None:
            self._server.close()
        self.cut()
        # What a stall held back of a connection that was cut has nobody left to wait for it.
        self._flowing.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def set_mode(self, mode: Mode) -> None:
        """Changes what happens from now on; open connections stay."""
        self._mode = mode
        if mode is Mode.STALL:
            self._flowing.clear()
        else:
            self._flowing.set()

    def cut(self) -> None:
        """Resets every open connection; new ones are taken as the mode says."""
        for writer in list(self._writers):
            reset(writer.transport)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # One that came in at the end has its turn here only after it.
        if self._mode is Mode.REFUSE or self._closed:
            reset(writer.transport)
            return
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        target_writer: asyncio.StreamWriter | None = None
        try:
            with suppress(OSError):
                target_reader, target_writer = await asyncio.open_connection(*self._target)
                self._writers.add(target_writer)
                await asyncio.gather(self._pump(reader, target_writer), self._pump(target_reader, writer))
        except asyncio.CancelledError:
            # Only the proxy's own end cancels; asyncio's server callback would report it as a fault.
            return
        finally:
            for used in (writer, target_writer):
                if used is not None:
                    self._writers.discard(used)
                    used.close()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(64 * 1024):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
