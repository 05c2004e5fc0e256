"""Where an issuer's keys come from: an HTTPS address or a file; the last good ones are kept."""

import asyncio
import http.client
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import structlog
from minion_errors import Unavailable

from minion_auth import key_sets
from minion_auth.key_sets import SigningKey

_FETCH_SECONDS: Final = 5.0


class KeySource(Protocol):
    """Reads an issuer's key set: over HTTP, or from a file."""

    # How long what was read is taken as it is; afterwards it is read again while calls go on with it.
    fresh_seconds: float

    async def read(self) -> bytes | None:
        """Gives the document, or None where it is the one that was read last.

        Raises:
            OSError, http.client.HTTPException, ValueError: it can't be read now.
        """
        ...


class HttpKeySource:
    """Fetches the key set: within 5 s in all, at most 256 KiB, and from this address alone: redirects are refused."""

    fresh_seconds = 300.0

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    async def read(self) -> bytes | None:
        """Gives the document."""
        connection = self._connection()
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                return await asyncio.to_thread(self._fetch, connection)
        finally:
            # A thread can't be stopped; one that still reads finds its socket shut, and ends.
            if (open_socket := connection.sock) is not None:
                with suppress(OSError):
                    open_socket.shutdown(socket.SHUT_RDWR)

    def _connection(self) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=_FETCH_SECONDS, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=_FETCH_SECONDS)

    def _fetch(self, connection: http.client.HTTPConnection) -> bytes:
        try:
            connection.request("GET", self._path, headers={"Accept": "application/json", "Connection": "close"})
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise ValueError(f"it was answered with status {response.status}")
            body = response.read(key_sets.MAXIMUM_BYTES + 1)
            if len(body) > key_sets.MAXIMUM_BYTES:
                raise ValueError(f"it has more than {key_sets.MAXIMUM_BYTES} bytes")
            return body
        finally:
            connection.close()


class FileKeySource:
    """Reads the key set from a file, again when it has changed."""

    fresh_seconds = 1.0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: tuple[int, int, int] | None = None

    async def read(self) -> bytes | None:
        """Gives the document, or None where the file is as it was."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> bytes | None:
        found = self._path.stat()
        state = (found.st_ino, found.st_mtime_ns, found.st_size)
        if state == self._last:
            return None
        with self._path.open("rb") as file:
            document = file.read(key_sets.MAXIMUM_BYTES + 1)
        self._last = state
        return document


class IssuerKeys:
    """The keys of one issuer, by key id; safe for any number of calls at once on one event loop.

    Read when first asked for. Old ones are read anew in the background, and at once where a key id is unknown: at most
    once in `unknown_seconds` (a file: in a second) for all callers together. While they can't be read, the last good
    ones stay.
    """

    def __init__(
        self,
        source: KeySource,
        *,
        unknown_seconds: float = 10.0,
        retry_seconds: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._unknown_seconds = unknown_seconds
        self._retry_seconds = retry_seconds
        self._monotonic = monotonic
        self._keys: Mapping[str, SigningKey] | None = None
        self._checked = 0.0  # when the keys were last known to be the issuer's
        self._tried = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._log = structlog.get_logger()
        # Counts the times that the keys have changed: what was verified by others must be verified again.
        self.generation = 0

    @property
    def fresh(self) -> bool:
        """Whether the keys were read, and so lately that they need not be read again."""
        return self._keys is not None and self._monotonic() - self._checked < self._source.fresh_seconds

    async def find(self, key_id: str) -> SigningKey | None:
        """Gives the key, or None where the issuer has none with this id.

        Raises:
            Unavailable: the keys were never read, and can't be now (`IDENTITY_UNAVAILABLE`).
        """
        if self._keys is None:
            await self._read(self._retry_seconds)
            if self._keys is None:
                raise Unavailable(
                    "The keys of the tokens' issuer can't be read now.",
                    reason="IDENTITY_UNAVAILABLE",
                    retry_after=timedelta(seconds=self._retry_seconds),
                )
        elif key_id not in self._keys:
            await self._read(min(self._unknown_seconds, self._source.fresh_seconds))
        else:
            await self.freshen()
        return self._keys.get(key_id)

    async def freshen(self) -> None:
        """Has old keys read again: in the background, or before going on where they are older than three times that."""
        if self._keys is None or self.fresh:
            return
        reading = self._begin(self._retry_seconds)
        if reading is not None and self._monotonic() - self._checked > 3 * self._source.fresh_seconds:
            await asyncio.shield(reading)

    async def _read(self, pause: float) -> None:
        reading = self._begin(pause)
        if reading is not None:
            # It serves everybody who waits: it outlives a caller who goes away.
            await asyncio.shield(reading)

    def _begin(self, pause: float) -> "asyncio.Task[None] | None":
        """Gives the reading in hand, or begins one unless the last began less than `pause` seconds ago."""
        if self._reading is None:
            now = self._monotonic()
            if now < self._tried + pause:
                return None
            self._tried = now
            self._reading = asyncio.get_running_loop().create_task(self._take())
        return self._reading

    async def _take(self) -> None:
        started = self._monotonic()
        try:
            document = await self._source.read()
            if document is not None:
                keys = key_sets.parse(document)
                if keys != self._keys:
                    self._keys = keys
                    self.generation += 1
            self._checked = started
        except (OSError, http.client.HTTPException, ValueError) as fault:
            # TimeoutError is an OSError. The text of a fault can hold what the address answered: its kind is enough.
            self._log.warning("the keys of the tokens' issuer can't be read", error=type(fault).__name__)
        finally:
            self._reading = None
