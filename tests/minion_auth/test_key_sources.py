"""Where keys come from: a file, or an address that may stall, redirect, drown us, or go away."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import structlog
from minion_auth.key_sources import FileKeySource, HttpKeySource, IssuerKeys
from minion_errors import Unavailable

from tests.minion_auth.issuer import Issuer, private_key, public_jwk


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Address:
    """An HTTP server that answers what it is told to."""

    answer: bytes
    asked: list[bytes] = field(default_factory=list)
    stalls: bool = False
    url: str = ""
    open: list[asyncio.StreamWriter] = field(default_factory=list)

    def says(self, body: bytes, status: str = "200 OK", *headers: str) -> None:
        """Answers with this from now on."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        self.answer = "\r\n".join([*lines, "", ""]).encode() + body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.append(writer)
        try:
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            if self.stalls:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def address() -> AsyncIterator[Address]:
    served = Address(b"")
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks?v=1"
    async with server:
        yield served
        for writer in served.open:
            writer.close()


@pytest.fixture
def issuer() -> Issuer:
    return Issuer(uuid4(), keys=[public_jwk(private_key("RSA"), "one")])


def keys_of(url: str, clock: Callable[[], float]) -> IssuerKeys:
    return IssuerKeys(HttpKeySource(url), monotonic=clock)


@pytest.fixture(autouse=True)
def time_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives each reading the time that a busy machine needs; tests of the limit set their own."""
    monkeypatch.setattr("minion_auth.key_sources._FETCH_SECONDS", 60.0)


def reading_thread(before: set[threading.Thread]) -> threading.Thread:
    """Gives the one thread that reads keys and was not there before; other threads are none of ours."""
    [thread] = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("jwks-")]
    return thread


async def read_in_the_background(keys: IssuerKeys) -> None:
    """Waits for the reading in hand, where there is one."""
    if keys._reading is not None:
        await keys._reading


async def settled(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


async def test_keys_are_fetched_once_and_asked_for_by_their_address_alone(issuer: Issuer) -> None:
    async with address() as served:
        served.says(issuer.document())
        keys = keys_of(served.url, Clock())
        assert await keys.find("one") is not None
        assert await keys.find("one") is not None
    assert len(served.asked) == 1
    assert served.asked[0].startswith(b"GET /jwks?v=1 HTTP/1.1\r\n")
    assert b"uthorization" not in served.asked[0]


async def test_calls_at_once_share_the_first_reading(issuer: Issuer) -> None:
    async with address() as served:
        served.says(issuer.document())
        keys = keys_of(served.url, Clock())
        first = asyncio.create_task(keys.find("one"))
        others = [asyncio.create_task(keys.find("one")) for _ in range(5)]
        await asyncio.sleep(0)
        first.cancel()
        assert None not in await asyncio.gather(*others)
    assert len(served.asked) == 1


@pytest.mark.parametrize(
    ("body", "status", "headers"),
    [
        (b"", "302 Found", ["Location: http://127.0.0.1:1/jwks"]),
        (b'{"keys": []}', "404 Not Found", []),
        (b'{"keys": []}', "500 Internal Server Error", []),
        (b"<html>", "200 OK", []),
        (b'{"keys": []}' + b" " * 300_000, "200 OK", []),
        (b'{"keys": []}', "204 No Content", []),
        (b'{"keys": []}', "200 OK", ["X: " + "x" * 70_000]),
        (b'{"keys": []}', "200 OK", [f"X{number}: x" for number in range(200)]),
        (b'{"keys": []}', "no status at all", []),
    ],
)
async def test_an_answer_that_is_no_key_set_is_no_answer_and_is_asked_again_in_a_second(
    issuer: Issuer, body: bytes, status: str, headers: list[str]
) -> None:
    clock = Clock()
    async with address() as served:
        served.says(body, status, *headers)
        keys = keys_of(served.url, clock)
        for _ in range(3):
            with pytest.raises(Unavailable) as refusal:
                await keys.find("one")
            assert refusal.value.reason == "IDENTITY_UNAVAILABLE"
            assert refusal.value.retry_after is not None
        assert len(served.asked) == 1
        served.says(issuer.document())
        clock.now += 1
        assert await keys.find("one") is not None


async def test_an_address_where_nobody_answers_is_unavailable() -> None:
    async with address() as served:
        url = served.url
    with pytest.raises(Unavailable):
        await keys_of(url, Clock()).find("one")


async def test_an_answer_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minion_auth.key_sources._FETCH_SECONDS", 0.2)
    for begun in (b"", b"HTTP/1.1 200 OK\r\n", b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"keys":'):
        async with address() as served:
            served.answer, served.stalls = begun, True
            async with asyncio.timeout(60):
                with pytest.raises(Unavailable):
                    await keys_of(served.url, Clock()).find("one")


async def test_a_drip_of_bytes_does_not_stretch_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minion_auth.key_sources._FETCH_SECONDS", 0.3)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            for _ in range(20_000):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server, asyncio.timeout(60):
        with pytest.raises(Unavailable):
            await keys_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", Clock()).find("one")


async def test_an_unknown_id_has_the_keys_read_at_most_once_in_ten_seconds_for_all_callers(issuer: Issuer) -> None:
    clock = Clock()
    async with address() as served:
        served.says(issuer.document())
        keys = keys_of(served.url, clock)
        assert await keys.find("one") is not None
        clock.now += 10
        await asyncio.gather(*(keys.find(f"unknown-{number}") for number in range(50)))
        assert len(served.asked) == 2
        issuer.keys.append(public_jwk(private_key("P-256"), "two"))
        served.says(issuer.document())
        assert await keys.find("two") is None
        clock.now += 10
        assert await keys.find("two") is not None
        assert len(served.asked) == 3


async def test_old_keys_are_read_anew_while_calls_go_on_with_them(issuer: Issuer) -> None:
    clock = Clock()
    async with address() as served:
        served.says(issuer.document())
        keys = keys_of(served.url, clock)
        await keys.find("one")
        generation = keys.generation
        clock.now += 301
        issuer.keys = [public_jwk(private_key("P-256"), "two")]
        served.says(issuer.document())
        assert await keys.find("one") is not None
        await settled(lambda: keys.generation > generation)
        assert await keys.find("one") is None
        assert await keys.find("two") is not None
        assert len(served.asked) == 2


async def test_very_old_keys_are_read_before_anything_goes_on_with_them(issuer: Issuer) -> None:
    clock = Clock()
    async with address() as served:
        served.says(issuer.document())
        keys = keys_of(served.url, clock)
        await keys.find("one")
        clock.now += 901
        issuer.keys = []
        served.says(issuer.document())
        assert await keys.find("one") is None


async def test_the_last_good_keys_stay_while_they_cannot_be_read(issuer: Issuer) -> None:
    clock = Clock()
    async with address() as served:
        served.says(issuer.document())
        keys = keys_of(served.url, clock)
        await keys.find("one")
        for body, status in ((b"<html>", "200 OK"), (b"", "503 Service Unavailable")):
            served.says(body, status)
            clock.now += 1_000
            assert await keys.find("one") is not None
        generation = keys.generation
    clock.now += 1_000
    assert await keys.find("one") is not None
    assert keys.generation == generation


async def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path, issuer: Issuer) -> None:
    clock = Clock()
    path = issuer.publish(tmp_path / "jwks.json")
    keys = IssuerKeys(FileKeySource(path), monotonic=clock)
    assert await keys.find("one") is not None
    generation = keys.generation
    clock.now += 3.5
    assert await keys.find("one") is not None
    assert keys.generation == generation
    # Replaced as a whole, as Kubernetes and careful people do it.
    issuer.keys = [public_jwk(private_key("P-256"), "two")]
    os.replace(issuer.publish(tmp_path / "new.json"), path)
    clock.now += 3.5
    assert await keys.find("one") is None
    assert await keys.find("two") is not None


async def test_a_file_that_is_gone_or_spoilt_leaves_the_last_good_keys(tmp_path: Path, issuer: Issuer) -> None:
    clock = Clock()
    path = issuer.publish(tmp_path / "jwks.json")
    keys = IssuerKeys(FileKeySource(path), monotonic=clock)
    await keys.find("one")
    for spoil in (lambda: path.write_text("{"), path.unlink):
        spoil()
        clock.now += 3.5
        assert await keys.find("one") is not None


async def test_nobody_waits_for_an_address_that_hangs_once_it_could_not_be_read(issuer: Issuer) -> None:
    clock = Clock()
    with structlog.testing.capture_logs() as faults:
        async with address() as served:
            served.says(issuer.document())
            keys = keys_of(served.url, clock)
            await keys.find("one")
            served.says(b"", "503 Service Unavailable")
            clock.now += 1_000
            assert await keys.find("one") is not None
            served.answer, served.stalls = b"", True
            clock.now += 1_000
            async with asyncio.timeout(60):
                for _ in range(10):
                    assert await keys.find("one") is not None
                    assert await keys.find("unknown") is None
                    assert keys.go_on()
            await settled(lambda: len(served.asked) == 3)
        await settled(lambda: len(faults) == 2)


async def test_a_call_waits_once_for_an_address_that_hangs(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    async with address() as served:
        served.says(issuer.document())
        keys = keys_of(served.url, clock)
        await keys.find("one")
        monkeypatch.setattr("minion_auth.key_sources._FETCH_SECONDS", 1.0)
        served.answer, served.stalls = b"", True
        clock.now += 901
        assert not keys.go_on()
        assert await keys.find("one") is not None
        assert keys.go_on()
        # One more at most: the time may be over before it has got as far as the address.
        assert len(served.asked) <= 2


async def test_tries_get_rarer_while_keys_cannot_be_read_and_are_counted_from_their_end(issuer: Issuer) -> None:
    clock = Clock()
    async with address() as served:
        served.says(b"", "503 Service Unavailable")
        keys = keys_of(served.url, clock)

        async def tries(seconds: int) -> list[int]:
            """Calls each second, and gives the seconds in which the address was asked."""
            found = []
            for second in range(seconds):
                before = len(served.asked)
                with pytest.raises(Unavailable):
                    await keys.find("one")
                if len(served.asked) > before:
                    found.append(second)
                clock.now += 1
            return found

        assert await tries(100) == [0, 1, 3, 7, 15, 31, 61, 91]
        served.says(issuer.document())
        clock.now += 30
        assert await keys.find("one") is not None
        served.says(b"", "503 Service Unavailable")
        clock.now += 1_000
        for seconds in (0.0, 1.0):
            clock.now += seconds
            before = len(served.asked)
            await keys.find("one")
            await settled(lambda before=before: len(served.asked) > before)  # type: ignore[misc]


async def test_a_slow_try_is_not_followed_by_another_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minion_auth.key_sources._FETCH_SECONDS", 1.0)
    clock = Clock()
    async with address() as served:
        served.stalls = True
        keys = keys_of(served.url, clock)
        first = asyncio.create_task(keys.find("one"))
        # Two turns of the loop begin the reading; it can't have ended, however long they take.
        for _ in range(2):
            await asyncio.sleep(0)
        clock.now += 5
        with pytest.raises(Unavailable):
            await first
        asked = len(served.asked)
        with pytest.raises(Unavailable):
            await keys.find("one")
        assert len(served.asked) == asked


async def test_a_name_whose_resolution_hangs_holds_one_thread_and_none_of_the_loops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("minion_auth.key_sources._FETCH_SECONDS", 0.05)
    asked, resolved = [], threading.Event()

    def resolve(host: str, *_: Any, **__: Any) -> Any:
        asked.append(host)
        resolved.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    clock = Clock()
    before = set(threading.enumerate())
    keys = keys_of("https://issuer.example/jwks", clock)
    try:
        for _ in range(10):
            with pytest.raises(Unavailable):
                await keys.find("one")
            clock.now += 100
        thread = reading_thread(before)
        assert (thread.name, thread.daemon) == ("jwks-address", True)
        # The thread reads the system's CAs first.
        await settled(lambda: bool(asked))
        assert asked == ["issuer.example"]
    finally:
        resolved.set()
    await settled(lambda: not thread.is_alive())
    with pytest.raises(Unavailable):
        await keys.find("one")
    await settled(lambda: len(asked) == 2)


async def test_an_address_that_is_reached_too_late_is_asked_nothing(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minion_auth.key_sources._FETCH_SECONDS", 0.05)
    resolve, resolved = socket.getaddrinfo, threading.Event()

    def late(*args: Any, **kwargs: Any) -> Any:
        resolved.wait(30)
        return resolve(*args, **kwargs)

    async with address() as served:
        served.says(issuer.document())
        monkeypatch.setattr("socket.getaddrinfo", late)
        before = set(threading.enumerate())
        with pytest.raises(Unavailable):
            await keys_of(served.url, Clock()).find("one")
        thread = reading_thread(before)
        resolved.set()
        await settled(lambda: not thread.is_alive())
    assert served.asked == []


async def test_a_file_that_hangs_holds_one_thread_and_leaves_the_last_good_keys(
    tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    path = issuer.publish(tmp_path / "jwks.json")
    keys = IssuerKeys(FileKeySource(path), monotonic=clock)
    await keys.find("one")
    monkeypatch.setattr("minion_auth.key_sources._FETCH_SECONDS", 0.05)
    # Opening a pipe that nobody writes to hangs, as a disk of another machine does.
    path.unlink()
    os.mkfifo(path)
    before = set(threading.enumerate())
    for _ in range(10):
        clock.now += 3.5
        assert await keys.find("one") is not None
    thread = reading_thread(before)
    assert (thread.name, thread.daemon) == ("jwks-file", True)
    with path.open("wb"):
        pass
    await settled(lambda: not thread.is_alive())
    monkeypatch.setattr("minion_auth.key_sources._FETCH_SECONDS", 60.0)
    path.unlink()
    issuer.keys = []
    issuer.publish(path)
    generation = keys.generation
    clock.now += 3.5
    await keys.find("one")
    await settled(lambda: keys.generation > generation)


async def test_a_spoilt_file_stays_a_fault_and_is_warned_of_every_half_minute(tmp_path: Path, issuer: Issuer) -> None:
    clock = Clock()
    path = issuer.publish(tmp_path / "jwks.json")
    with structlog.testing.capture_logs() as lines:
        keys = IssuerKeys(FileKeySource(path), monotonic=clock)
        await keys.find("one")
        path.write_text("{")
        for _ in range(70):
            clock.now += 1
            await keys.find("one")
            await read_in_the_background(keys)
        assert {line["event"] for line in lines} == {"the keys of the tokens' issuer can't be read"}
        assert [line["failures"] for line in lines] == [1, 31, 61]
        # One good reading, and the next fault is news.
        issuer.publish(path)
        clock.now += 1
        await keys.find("one")
        await read_in_the_background(keys)
        path.write_text("{")
        clock.now += 3.5
        await keys.find("one")
        assert len(lines) == 4
