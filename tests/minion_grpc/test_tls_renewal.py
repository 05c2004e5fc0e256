"""Certificates that change while they are used: taken up with no restart and no lost call."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from minion_grpc import TlsFiles, connect
from minion_grpc.certificates import RenewedCertificates
from minion_grpc.listener import ExpiryGauge, TlsListener
from prometheus_client import CollectorRegistry

from tests.minion_grpc.authority import Authority, Folder, Issued
from tests.minion_grpc.echo import EchoRequest, EchoServicer
from tests.minion_grpc.stage import Served, serving, stub
from tests.minion_grpc.test_tls import channel, outcome, shown

_PATIENCE = 60.0


@dataclass
class Calling:
    """Calls without a pause, and how they ended."""

    made: int = 0
    failed: list[str] = field(default_factory=list)

    def beyond(self, number: int) -> bool:
        """Tells whether more calls than that have ended well."""
        return self.made > number

    async def go_on(self, opened: grpc.aio.Channel) -> None:
        """Calls until cancelled, one after the other."""
        while True:
            try:
                await stub(opened).Echo(EchoRequest(text="x"), timeout=10)
                self.made += 1
            except grpc.aio.AioRpcError as error:
                self.failed.append(f"{error.code().name}: {error.details()}")


@asynccontextmanager
async def calling(*channels: grpc.aio.Channel) -> AsyncIterator[Calling]:
    """Calls on all channels at once, for a block."""
    found = Calling()
    tasks = [asyncio.create_task(found.go_on(opened)) for opened in channels]
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], Any]) -> None:
    """Waits until a condition holds, with a bound."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            held = condition()
            if await held if asyncio.iscoroutine(held) else held:
                return
            await asyncio.sleep(0.02)


def shows(address: str, pem: bytes) -> Callable[[], Any]:
    """Gives the condition that new connections are shown this certificate."""

    async def is_shown() -> bool:
        return (await shown(address))[1].encode().strip() == pem.strip()

    return is_shown


class Peers:
    """A handler that remembers which certificates its clients showed, and lets a call wait."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self.open = asyncio.Event()

    def saw(self, pem: bytes) -> bool:
        """Tells whether a client showed this certificate."""
        return pem in self.seen

    async def __call__(self, request: Any, context: Any) -> str:
        self.seen.update(bytes(pem) for pem in context.auth_context().get("x509_pem_cert", ()))
        if request.text == "wait":
            await self.open.wait()
        return str(request.text)


@pytest.fixture
def authority() -> Authority:
    """The CA that both sides trust."""
    return Authority()


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> Folder:
    """What the server is given."""
    return Folder(tmp_path / "server", authority.issue("server"), authority)


@pytest.fixture
def client(tmp_path: Path, authority: Authority) -> Folder:
    """What a client is given."""
    return Folder(tmp_path / "client", authority.issue("client"), authority)


async def test_both_ports_show_a_renewed_certificate_while_calls_go_on(
    server: Folder, client: Folder, authority: Authority
) -> None:
    async with (
        serving(**server.tls(), **server.mtls()) as served,
        channel(served, client.ca_alone) as first,
        channel(served, client.files, served.server.mtls_address) as second,
        calling(first, first, second, second) as calls,
    ):
        for _ in range(2):
            renewed = authority.issue("server")
            before = calls.made
            server.hold(renewed)
            for address in served.server.addresses.values():
                await until(shows(address, renewed.pem))
            await until(partial(calls.beyond, before + 20))
            async with channel(served, client.files, served.server.mtls_address) as late:
                assert (await stub(late).Echo(EchoRequest(text="late"))).text == "late"
    assert calls.failed == []


async def test_a_client_shows_its_renewed_certificate_while_calls_go_on(
    server: Folder, client: Folder, authority: Authority
) -> None:
    peers = Peers()
    async with (
        serving(EchoServicer(peers), **server.mtls()) as served,
        channel(served, client.files, served.server.mtls_address) as opened,
        calling(opened, opened) as calls,
    ):
        waiting = asyncio.ensure_future(stub(opened).Echo(EchoRequest(text="wait")))
        watch = stub(opened).WatchEcho(EchoRequest(text="wait"))
        assert (await watch.read()).text == "watching"
        for _ in range(3):
            renewed = authority.issue("client")
            client.hold(renewed)
            await until(partial(peers.saw, renewed.pem))
        # What began under the first certificate still ends well.
        assert not waiting.done()
        peers.open.set()
        assert (await waiting).text == "wait"
        assert await watch.read() is grpc.aio.EOF
    assert calls.failed == []
    assert len(peers.seen) == 4


async def test_a_client_takes_up_another_ca(server: Folder, client: Folder, authority: Authority) -> None:
    following = Authority("following")
    async with (
        serving(**server.tls()) as served,
        channel(served, client.ca_alone) as opened,
        calling(opened) as calls,
    ):
        client.ca.write_bytes(authority.own.pem + following.own.pem)
        renewed = following.issue("server")
        server.hold(renewed)
        await until(shows(served.server.address, renewed.pem))
        await until(lambda: _reaches(served, client.ca_alone))
        # The connection at hand would live on for minutes; renewing the channel makes another.
        client.ca.write_bytes(following.own.pem)
        before = calls.made
        await until(partial(calls.beyond, before + 20))
    assert calls.failed == []


async def test_another_client_ca_is_taken_up(server: Folder, client: Folder, authority: Authority) -> None:
    following = Authority("following")
    before = client.files
    async with serving(**server.mtls()) as served:
        address = served.server.mtls_address
        assert await outcome(channel(served, before, address)) == "x"
        server.ca.write_bytes(following.own.pem)
        await until(lambda: _refuses(served, before, address))
        client.hold(following.issue("client"))
        assert await outcome(channel(served, client.files, address)) == "x"


async def test_links_are_followed_as_kubernetes_turns_them(tmp_path: Path, authority: Authority) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    first, second = authority.issue(), authority.issue()
    for name, issued in (("one", first), ("two", second)):
        Folder(mounted / name, issued, authority)
    (mounted / "..data").symlink_to("one")
    for name in ("tls.crt", "tls.key"):
        (mounted / name).symlink_to(Path("..data") / name)
    async with serving(tls_certificate=mounted / "tls.crt", tls_key=mounted / "tls.key") as served:
        await until(shows(served.server.address, first.pem))
        (mounted / "..next").symlink_to("two")
        (mounted / "..next").rename(mounted / "..data")
        await until(shows(served.server.address, second.pem))


@pytest.mark.parametrize("broken", ["key", "certificate", "missing"])
async def test_files_that_do_not_go_together_are_left_alone_until_they_do(
    server: Folder, client: Folder, authority: Authority, broken: str
) -> None:
    old, renewed = server.certificate.read_bytes(), authority.issue()
    with structlog.testing.capture_logs() as lines:

        def told(event: str) -> int:
            return len([line for line in lines if line["event"] == event])

        async with (
            serving(**server.tls()) as served,
            channel(served, client.ca_alone) as opened,
            calling(opened) as calls,
        ):
            if broken == "missing":
                server.key.unlink()
            elif broken == "certificate":
                server.certificate.write_bytes(renewed.pem[:100])
            else:
                server.certificate.write_bytes(renewed.pem)
            await until(lambda: told("certificates not renewed"))
            assert (await shown(served.server.address))[1].encode().strip() == old.strip()
            server.hold(renewed)
            await until(shows(served.server.address, renewed.pem))
    assert calls.failed == []
    assert told("certificates not renewed") in (1, 2)
    assert told("certificates renewed") == 1


async def test_a_client_keeps_its_certificate_while_the_pair_does_not_match(
    server: Folder, client: Folder, authority: Authority
) -> None:
    peers, renewed = Peers(), authority.issue("client")
    with structlog.testing.capture_logs() as lines:
        async with (
            serving(EchoServicer(peers), **server.mtls()) as served,
            channel(served, client.files, served.server.mtls_address) as opened,
            calling(opened) as calls,
        ):
            await until(lambda: peers.seen)
            client.certificate.write_bytes(renewed.pem)
            await until(lambda: [line for line in lines if line["event"] == "certificates not renewed"])
            assert len(peers.seen) == 1
            client.key.write_bytes(renewed.key)
            await until(partial(peers.saw, renewed.pem))
    assert calls.failed == []


async def test_an_expired_replacement_is_not_taken(server: Folder, authority: Authority) -> None:
    old = server.certificate.read_bytes()
    with structlog.testing.capture_logs() as lines:
        async with serving(**server.tls()) as served:
            server.hold(authority.issue(lifetime=timedelta(days=-1)))
            await until(lambda: [line for line in lines if "ended at" in line.get("error", "")])
            assert (await shown(served.server.address))[1].encode().strip() == old.strip()


def test_a_replacement_of_later_is_taken_when_its_time_has_come(
    server: Folder, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = RenewedCertificates(server.files, "tests")
    old, later = certificates.current, authority.issue(begins=timedelta(hours=1))
    server.hold(later)
    begins = later.certificate.not_valid_before_utc
    with structlog.testing.capture_logs() as lines:
        assert not certificates.look()
        assert certificates.current == old
        for moment in (begins - timedelta(seconds=1), begins):
            monkeypatch.setattr("minion_grpc.certificates.datetime", _clock(moment))
            assert certificates.look() == (moment >= begins)
    assert certificates.current.certificate == later.pem
    assert [line["event"] for line in lines] == ["certificates not renewed", "certificates renewed"]
    assert "begins at" in lines[0]["error"]


@pytest.mark.parametrize(("days", "warned"), [(6, True), (8, False)])
async def test_a_near_end_is_warned_of_once_and_measured(
    server: Folder, authority: Authority, days: int, warned: bool
) -> None:
    ending = authority.issue(lifetime=timedelta(days=days))
    server.hold(ending)
    with structlog.testing.capture_logs() as lines:
        async with serving(**server.tls(), **server.mtls()) as served:
            for listener in ("tls", "mtls"):
                await until(partial(_ends, served, listener, ending))
            renewed = authority.issue(lifetime=timedelta(days=90))
            server.hold(renewed)
            await until(partial(_ends, served, "tls", renewed))
    warnings = [line for line in lines if line["event"] == "certificate ends soon"]
    assert sorted(line["listener"] for line in warnings) == (["mtls", "tls"] if warned else [])


async def test_a_near_end_is_not_told_at_each_look(server: Folder, authority: Authority) -> None:
    server.hold(authority.issue(lifetime=timedelta(days=6)))
    with structlog.testing.capture_logs() as lines:
        listener = TlsListener("tls", server.files, ExpiryGauge(CollectorRegistry()), look_seconds=0.01)
        watch = asyncio.create_task(listener.watch())
        # Two faults are told by two looks.
        server.key.write_bytes(b"no key")
        await until(lambda: "holds no private key" in str(lines))
        server.key.unlink()
        await until(lambda: "can't be read" in str(lines))
        watch.cancel()
    assert [line["event"] for line in lines].count("certificate ends soon") == 1


def test_refused_files_are_read_again_though_they_look_the_same(server: Folder, authority: Authority) -> None:
    certificates = RenewedCertificates(server.files, "tests")
    renewed = authority.issue()
    server.certificate.write_bytes(renewed.pem)
    assert not certificates.look()
    before = server.key.stat()
    # Written within the clock's grain, and of the same length.
    server.key.write_bytes(renewed.key)
    os.utime(server.key, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert server.key.stat().st_size == before.st_size
    assert certificates.look()
    assert certificates.current.key == renewed.key
    assert not certificates.look()


async def test_a_channel_can_be_closed_with_generations_behind_it(
    server: Folder, client: Folder, authority: Authority
) -> None:
    peers = Peers()
    async with serving(EchoServicer(peers), **server.mtls()) as served:
        opened = connect(
            str(served.server.mtls_address), telemetry=served.telemetry, tls=client.files, tokens=served.tokens
        )
        waiting = asyncio.ensure_future(stub(opened).Echo(EchoRequest(text="wait")))
        async with calling(opened):
            renewed = authority.issue("client")
            client.hold(renewed)
            await until(partial(peers.saw, renewed.pem))
        await asyncio.wait_for(opened.close(), 60)
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await waiting


def _ends(served: Served, listener: str, issued: Issued) -> bool:
    found = served.telemetry.registry.get_sample_value(
        "tls_certificate_expiry_timestamp_seconds", {"listener": listener}
    )
    return found == issued.certificate.not_valid_after_utc.timestamp()


def _clock(moment: datetime) -> type[datetime]:
    """A clock that stands."""

    class Standing(datetime):
        @classmethod
        def now(cls, _: Any = None) -> Any:
            return moment

    return Standing


async def _reaches(served: Served, tls: TlsFiles) -> bool:
    return await outcome(channel(served, tls)) == "x"


async def _refuses(served: Served, tls: TlsFiles, address: str | None) -> bool:
    return await outcome(channel(served, tls, address)) == "UNAVAILABLE"
