"""Where an issuer's keys come from: an HTTPS address or a file; the last good ones are kept."""

import asyncio
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
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
# The longest pause between two tries to read keys that can't be read, and between two warnings of it.
_LONGEST_PAUSE_SECONDS: Final = 30.0
_WARNING_SECONDS: Final = 30.0


class KeySource(Protocol):
    """Reads an issuer's key set: over HTTP, or from a file."""

    # How long what was read is taken as it is; afterwards it is read again while calls go on with it.
    fresh_seconds: float

    async def read(self) -> bytes:
        """Gives the document, within 5 s.

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
        self._thread = _ReadingThread("jwks-address")

    async def read(self) -> bytes:
        """Gives the document."""
        fetch = _Fetch(self._connection, self._path)
        try:
            return await self._thread.run(fetch)
        finally:
            fetch.give_up()

    def _connection(self) -> http.client.HTTPConnection:
        if self._secure:
            # Made for each reading, so that the system's CAs are those of now.
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=_FETCH_SECONDS, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=_FETCH_SECONDS)


class FileKeySource:
    """Reads the key set from a file."""

    fresh_seconds = 1.0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = _ReadingThread("jwks-file")

    async def read(self) -> bytes:
        """Gives the document."""
        return await self._thread.run(self._read)

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            return file.read(key_sets.MAXIMUM_BYTES + 1)


class _Fetch:
    """One reading of an address: run by a thread, given up from outside."""

    def __init__(self, connect: Callable[[], http.client.HTTPConnection], path: str) -> None:
        self._connect = connect
        self._path = path
        self._connection: http.client.HTTPConnection | None = None
        self._given_up = False

    def __call__(self) -> bytes:
        connection = self._connection = self._connect()
        try:
            connection.connect()
            # Looked at once there is a socket: before that `give_up` has none to shut.
            if self._given_up:
                raise TimeoutError("it was reached too late")
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

    def give_up(self) -> None:
        """Ends what still reads: it finds its socket shut. What still looks for the address ends once it has it."""
        self._given_up = True
        if self._connection is not None and (open_socket := self._connection.sock) is not None:
            with suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)


class _ReadingThread:
    """Runs what blocks, one reading at a time, each in a thread of its own.

    A thread can't be stopped, and one that looks up a name or waits for a disk can hang for long. So it is none of the
    event loop's, which are few and needed by others; it keeps no process from ending; and while it lives there is no
    other.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: Future[bytes] | None = None

    async def run(self, read: Callable[[], bytes]) -> bytes:
        """Gives what was read, within 5 s.

        Raises:
            TimeoutError: it took longer, or the reading before it has not ended yet.
        """
        if self._last is not None and not self._last.done():
            raise TimeoutError("the reading before has not ended yet")
        answer = Future[bytes]()
        # From now on nobody cancels it: it is done when the thread is.
        answer.set_running_or_notify_cancel()
        threading.Thread(target=_settle, args=(answer, read), name=self._name, daemon=True).start()
        self._last = answer
        async with asyncio.timeout(_FETCH_SECONDS):
            return await asyncio.wrap_future(answer)


def _settle(answer: "Future[bytes]", read: Callable[[], bytes]) -> None:
    try:
        answer.set_result(read())
    except BaseException as fault:  # noqa: BLE001 - whoever waits is told; a thread's own end would tell nobody
        answer.set_exception(fault)


class IssuerKeys:
    """The keys of one issuer, by key id; safe for any number of calls at once on one event loop.

    Read when first asked for. Old ones are read anew in the background, and at once where a key id is unknown: at most
    once in `unknown_seconds` (a file: in a second) for all callers together. While they can't be read, the last good
    ones stay, nobody who has them waits, and the tries get rarer: `retry_seconds` after the first ended, then twice as
    long after each, up to 30 s (a file: a second).
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
        self._document: bytes | None = None  # that they were read from
        self._checked = 0.0  # when the keys were last known to be the issuer's
        self._ended = float("-inf")  # the last try
        self._failures = 0  # since the keys were last read
        self._warned = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._log = structlog.get_logger()
        # Counts the times that the keys have changed: what was verified by others must be verified again.
        self.generation = 0

    async def find(self, key_id: str) -> SigningKey | None:
        """Gives the key, or None where the issuer has none with this id. Waits for one reading at most.

        Raises:
            Unavailable: the keys were never read, and can't be now (`IDENTITY_UNAVAILABLE`).
        """
        if self._keys is None:
            await self._read(self._retry_seconds)
            if self._keys is None:
                raise Unavailable(
                    "The keys of the tokens' issuer can't be read now.",
                    reason="IDENTITY_UNAVAILABLE",
                    retry_after=timedelta(seconds=max(self._retry_seconds, self._backoff())),
                )
        elif key_id not in self._keys:
            await self._read(min(self._unknown_seconds, self._source.fresh_seconds))
        elif not self.go_on():
            await self._read(self._retry_seconds)
        return self._keys.get(key_id)

    def go_on(self) -> bool:
        """Tells whether calls go on with the keys as they are; has old ones read again in the background.

        They don't where there are none, or where they are older than three times what is fresh and there is hope: the
        last try to read them did not fail.
        """
        if self._keys is None:
            return False
        age = self._monotonic() - self._checked
        if age < self._source.fresh_seconds:
            return True
        self._begin(self._retry_seconds)
        return self._failures > 0 or age <= 3 * self._source.fresh_seconds

    async def _read(self, pause: float) -> None:
        reading = self._begin(pause)
        if reading is not None and (self._keys is None or not self._failures):
            # It serves everybody who waits: it outlives a caller who goes away.
            await asyncio.shield(reading)

    def _begin(self, pause: float) -> "asyncio.Task[None] | None":
        """Gives the reading in hand, or begins one unless the last ended less than `pause` seconds ago."""
        if self._reading is None:
            if self._monotonic() < self._ended + max(pause, self._backoff()):
                return None
            self._reading = asyncio.get_running_loop().create_task(self._take())
        return self._reading

    def _backoff(self) -> float:
        if not self._failures:
            return 0.0
        # The power is bounded: of a thousand failures it would be no float.
        longest = min(_LONGEST_PAUSE_SECONDS, self._source.fresh_seconds)
        return min(self._retry_seconds * 2.0 ** min(self._failures - 1, 30), longest)

    async def _take(self) -> None:
        started = self._monotonic()
        try:
            document = await self._source.read()
            if document != self._document:
                keys = key_sets.parse(document)
                if keys != self._keys:
                    self._keys = keys
                    self.generation += 1
                # After it was understood: one that is no key set is a fault each time that it is read.
                self._document = document
            self._checked = started
            self._failures = 0
        except (OSError, http.client.HTTPException, ValueError) as fault:
            self._failures += 1
            self._warn(fault)
        finally:
            self._ended = self._monotonic()
            self._reading = None

    def _warn(self, fault: Exception) -> None:
        now = self._monotonic()
        if self._failures > 1 and now < self._warned + _WARNING_SECONDS:
            return
        self._warned = now
        # TimeoutError is an OSError. The text of a fault can hold what the address answered: its kind is enough.
        self._log.warning(
            "the keys of the tokens' issuer can't be read", error=type(fault).__name__, failures=self._failures
        )
