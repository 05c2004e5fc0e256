"""TLS on the wire: who is let in, what is shown, and what is refused."""

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from minion_errors import FailedPrecondition, Unavailable
from minion_grpc import TlsFiles, connect
from minion_testing.errors import refused

from tests.minion_grpc.authority import Authority, Folder
from tests.minion_grpc.echo import EchoRequest
from tests.minion_grpc.stage import Served, serving, stub


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


def channel(served: Served, tls: TlsFiles | None, address: str | None = None) -> grpc.aio.Channel:
    """Opens a channel with a tenant's key."""
    return connect(
        address or served.server.address, telemetry=served.telemetry, tls=tls, credential=served.keys.issue()
    )


async def echoed(opened: grpc.aio.Channel) -> str:
    """Makes one call."""
    async with opened:
        return str((await stub(opened).Echo(EchoRequest(text="x"), timeout=10)).text)


async def outcome(opened: grpc.aio.Channel) -> str:
    """Makes one call, and tells how it ended."""
    try:
        return await echoed(opened)
    except grpc.aio.AioRpcError as error:
        return error.code().name


async def shown(address: str, *, version: ssl.TLSVersion | None = None, own: Folder | None = None) -> tuple[str, str]:
    """Makes a handshake as any TLS client would; gives the version and the server's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if own is not None:
        context.load_cert_chain(own.certificate, own.key)
    if version is not None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version = context.maximum_version = version
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        spoken: ssl.SSLObject = writer.get_extra_info("ssl_object")
        return spoken.version() or "", ssl.DER_cert_to_PEM_cert(spoken.getpeercert(binary_form=True) or b"")
    finally:
        writer.transport.abort()


async def test_calls_go_over_tls(server: Folder) -> None:
    async with serving(**server.tls()) as served:
        assert await echoed(channel(served, server.ca_alone)) == "x"
        assert served.server.addresses == {"tls": served.server.address}
        assert (await shown(served.server.address))[0] == "TLSv1.3"


async def test_plain_text_is_refused_and_hurts_nobody(server: Folder) -> None:
    async with serving(**server.tls()) as served:
        assert await outcome(channel(served, None)) == "UNAVAILABLE"
        assert await outcome(channel(served, server.ca_alone)) == "x"


async def test_a_certificate_of_another_ca_is_refused(server: Folder, tmp_path: Path) -> None:
    foreign = Authority()
    other = Folder(tmp_path / "other", foreign.issue(), foreign)
    async with serving(**server.tls()) as served:
        assert await outcome(channel(served, other.ca_alone)) == "UNAVAILABLE"
        assert served.keys.asked == 0


async def test_a_client_that_names_no_ca_takes_the_systems(server: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(**server.tls()) as served:
        assert await outcome(channel(served, TlsFiles())) == "UNAVAILABLE"
        monkeypatch.setenv("SSL_CERT_FILE", str(server.ca))
        assert await outcome(channel(served, TlsFiles())) == "x"


async def test_a_certificate_of_another_host_is_refused(server: Folder, authority: Authority) -> None:
    server.hold(authority.issue(hosts=["elsewhere.test"]))
    async with serving(**server.tls()) as served:
        assert await outcome(channel(served, server.ca_alone)) == "UNAVAILABLE"


async def test_a_chain_leads_to_the_ca(server: Folder, authority: Authority) -> None:
    between = Authority("between", parent=authority)
    issued = between.issue()
    server.hold(issued)
    server.certificate.write_bytes(issued.pem + between.own.pem)
    async with serving(**server.tls()) as served:
        assert await outcome(channel(served, server.ca_alone)) == "x"


@pytest.mark.parametrize("kind", ["rsa", "P-384"])
async def test_the_kinds_of_keys_that_are_taken_work(server: Folder, authority: Authority, kind: str) -> None:
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP384R1())
    server.hold(authority.issue(key=key))
    async with serving(**server.tls()) as served:
        assert await outcome(channel(served, server.ca_alone)) == "x"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_versions_of_tls_are_refused(server: Folder, client: Folder, version: ssl.TLSVersion) -> None:
    async with serving(**server.tls(), **server.mtls()) as served:
        for address in served.server.addresses.values():
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await shown(address, version=version, own=client)
            assert (await shown(address, version=ssl.TLSVersion.TLSv1_2, own=client))[0] == "TLSv1.2"


async def test_both_ports_serve_the_same_and_are_told(server: Folder, client: Folder) -> None:
    with structlog.testing.capture_logs() as lines:
        async with serving(**server.tls(), **server.mtls()) as served:
            assert await echoed(channel(served, client.ca_alone)) == "x"
            assert await echoed(channel(served, client.files, served.server.mtls_address)) == "x"
            addresses = served.server.addresses
    assert list(addresses) == ["tls", "mtls"]
    told = next(line for line in lines if line["event"] == "serving")
    assert {"tls": told["address"], "mtls": told["mtls_address"]} == addresses


async def test_the_first_port_may_speak_plain_text_beside_mutual_tls(server: Folder, client: Folder) -> None:
    async with serving(**server.mtls()) as served:
        assert list(served.server.addresses) == ["plaintext", "mtls"]
        assert await outcome(channel(served, None)) == "x"
        assert await outcome(channel(served, client.files, served.server.mtls_address)) == "x"


async def test_mutual_tls_refuses_who_shows_no_certificate_of_its_ca(
    server: Folder, client: Folder, authority: Authority, tmp_path: Path
) -> None:
    foreign = Authority()
    other = Folder(tmp_path / "foreign", foreign.issue("client"), foreign)
    other.ca.write_bytes(authority.own.pem)
    async with serving(**server.tls(), **server.mtls()) as served:
        address = served.server.mtls_address
        assert await outcome(channel(served, client.ca_alone, address)) == "UNAVAILABLE"
        assert await outcome(channel(served, other.files, address)) == "UNAVAILABLE"
        assert await outcome(channel(served, None, address)) == "UNAVAILABLE"
        assert served.keys.asked == 0
        assert await outcome(channel(served, client.files, address)) == "x"


async def test_mutual_tls_refuses_an_expired_certificate(server: Folder, client: Folder, authority: Authority) -> None:
    expired = authority.issue("client", lifetime=timedelta(days=-1))
    async with serving(**server.tls(), **server.mtls()) as served:
        # Our own channels would not show it at all.
        credentials = grpc.ssl_channel_credentials(authority.own.pem, expired.key, expired.pem)
        opened = grpc.aio.secure_channel(str(served.server.mtls_address), credentials)
        assert await outcome(opened) == "UNAVAILABLE"
        client.hold(expired)
        with pytest.raises(FailedPrecondition, match="ended at") as refusal:
            channel(served, client.files)
        assert refusal.value.reason == "TLS_FILES_INVALID"


async def test_a_client_certificate_is_no_credential(server: Folder, client: Folder) -> None:
    async with serving(**server.mtls()) as served:
        opened = connect(str(served.server.mtls_address), telemetry=served.telemetry, tls=client.files)
        async with opened, refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING"):
            await stub(opened).Echo(EchoRequest())


async def test_a_taken_port_of_mutual_tls_is_an_error_that_names_it(server: Folder) -> None:
    async with serving(**server.mtls()) as first:
        port = int(str(first.server.mtls_address).rpartition(":")[2])
        with pytest.raises(Unavailable, match=str(port)) as fault:
            async with serving(**{**server.mtls(), "mtls_port": port}):
                pass
        assert fault.value.reason == "PORT_UNAVAILABLE"


@pytest.mark.slow
@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"])
async def test_who_never_ends_a_handshake_is_hung_up_on(server: Folder, said: bytes) -> None:
    async with serving(**server.tls(), **server.mtls()) as served:
        host, _, port = served.server.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(said)
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


@asynccontextmanager
async def eavesdropping() -> AsyncIterator[tuple[str, bytearray]]:
    """A peer that speaks no TLS, and keeps what it is sent."""
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # As an HTTP/2 server begins, so that a client of plain text goes on.
        writer.write(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        while chunk := await reader.read(65_536):
            heard.extend(chunk)
        writer.close()

    listening = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with listening:
        yield f"127.0.0.1:{listening.sockets[0].getsockname()[1]}", heard


async def test_credentials_are_sent_to_nobody_who_shows_no_certificate(server: Folder) -> None:
    async with serving() as served, eavesdropping() as (address, heard):
        opened: Any = connect(address, telemetry=served.telemetry, tls=server.ca_alone, tokens=served.tokens)
        async with opened:
            # What the peer says is no TLS, which ends the call.
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await stub(opened).Echo(EchoRequest(), timeout=60)
            assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        assert heard
        assert b"authorization" not in heard
        # In plain text it is sent: the peer is one that hears it.
        opened = connect(address, telemetry=served.telemetry, tls=None, tokens=served.tokens)
        async with opened, asyncio.timeout(60):
            call = asyncio.ensure_future(stub(opened).Echo(EchoRequest()))
            while b"authorization" not in heard:  # noqa: ASYNC110 - bytes ring no bell
                await asyncio.sleep(0.01)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)


async def test_plain_text_off_the_loopback_is_warned_of(server: Folder) -> None:
    for values, warned in (({}, True), (server.tls(), False)):
        with structlog.testing.capture_logs() as lines:
            async with serving(host="0.0.0.0", **values):  # noqa: S104 - a test's own
                pass
        assert ("credentials travel in plain text" in [line["event"] for line in lines]) == warned
