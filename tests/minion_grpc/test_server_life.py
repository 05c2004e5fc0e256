"""From the first port to the last call."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from minion_auth import Authenticator, ServiceTokens
from minion_errors import Unavailable
from minion_grpc import Server
from minion_telemetry import Telemetry
from minion_testing.errors import refused
from minion_testing.serving import free_ports

from tests.minion_grpc.echo import DESCRIPTOR, SERVICE, EchoRequest, EchoServicer, add_echo_servicer_to_server
from tests.minion_grpc.stage import SERVICE_KEY, Keys, Served, serving, settings, stub


class Gate:
    """A handler that waits until it is let through, and counts who is inside."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.entered = asyncio.Event()
        self.inside = 0
        self.peak = 0

    async def __call__(self, _request: Any, _context: Any) -> str:
        self.inside += 1
        self.peak = max(self.peak, self.inside)
        self.entered.set()
        try:
            await self.open.wait()
        finally:
            self.inside -= 1
        return "through"


_DATA, _HEADERS, _SETTINGS = 0, 1, 4


def _watch_with_no_room() -> bytes:
    """Gives what a client sends that watches health and lets the server send no byte of a message (HTTP/2)."""

    def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
        return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload

    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": b"/grpc.health.v1.Health/Watch",
        b":authority": b"test",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
    }
    headers = b"".join(bytes([0, len(name)]) + name + bytes([len(value)]) + value for name, value in fields.items())
    no_window = (4).to_bytes(2) + (0).to_bytes(4)
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(_SETTINGS, 0, 0, no_window)
        + frame(_SETTINGS, 1, 0)
        + frame(_HEADERS, 4, 1, headers)
        + frame(_DATA, 1, 1, bytes(5))
    )


async def health_of(channel: grpc.aio.Channel, service: str = SERVICE) -> Any:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    return answer.status


async def test_a_taken_port_is_an_error_that_names_it() -> None:
    async with serving() as served:
        configured = settings(port=served.server.port)
        telemetry = Telemetry.start("test", configured)
        authenticator = Authenticator(configured, Keys(), ServiceTokens(SERVICE_KEY, "test"))
        second = Server("test", configured, telemetry, authenticator)
        second.add(add_echo_servicer_to_server, EchoServicer(), DESCRIPTOR)
        with pytest.raises(Unavailable, match=str(served.server.port)) as fault:
            await second.start()
        assert fault.value.reason == "PORT_UNAVAILABLE"
        assert not second.ready
        await second.drain_and_stop()
        telemetry.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::1", "::"])  # noqa: S104 - a test's own
async def test_an_address_can_be_called_whatever_host_was_bound(host: str) -> None:
    async with serving(host=host) as served, served.channel() as channel:
        assert (await stub(channel).Echo(EchoRequest(text="x"), timeout=60)).text == "x"


async def test_the_limit_of_calls_at_once_holds() -> None:
    gate = Gate()
    async with serving(EchoServicer(gate), maximum_concurrent_rpcs=2) as served, served.channel() as channel:
        calls = [asyncio.ensure_future(_outcome(stub(channel).Echo(EchoRequest()))) for _ in range(10)]
        async with asyncio.timeout(60):
            ending = asyncio.as_completed(calls)
            assert [await next(ending) for _ in range(8)] == ["RESOURCE_EXHAUSTED"] * 8
        gate.open.set()
        assert sorted(await asyncio.gather(*calls)) == ["RESOURCE_EXHAUSTED"] * 8 + ["through"] * 2
        assert gate.peak == 2


async def test_a_drain_reports_not_serving_finishes_calls_in_hand_and_takes_no_more() -> None:
    gate = Gate()
    async with (
        serving(EchoServicer(gate), drain_notice_seconds=0.2, drain_seconds=60) as served,
        served.channel() as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
        call = asyncio.ensure_future(_outcome(stub(channel).Echo(EchoRequest())))
        await asyncio.wait_for(gate.entered.wait(), 60)
        assert served.server.ready
        drain = asyncio.ensure_future(served.server.drain_and_stop())
        assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        health.cancel()
        assert not served.server.ready
        async with asyncio.timeout(50):
            while await _outcome(stub(channel).Echo(EchoRequest(), timeout=0.3)) != "UNAVAILABLE":
                continue
        assert not drain.done()
        gate.open.set()
        assert await call == "through"
        await asyncio.wait_for(drain, 60)
        await served.server.drain_and_stop()


async def test_a_call_that_outlasts_the_drain_is_cut() -> None:
    gate = Gate()
    async with serving(EchoServicer(gate), drain_seconds=0.2) as served, served.channel() as channel:
        call = asyncio.ensure_future(_outcome(stub(channel).Echo(EchoRequest())))
        await asyncio.wait_for(gate.entered.wait(), 60)
        await asyncio.wait_for(served.server.drain_and_stop(), 60)
        assert await call != "through"


async def test_watches_are_sent_elsewhere_at_once_when_the_server_drains() -> None:
    gate = Gate()
    async with serving(EchoServicer(gate), drain_seconds=60) as served, served.channel() as channel:
        watch = stub(channel).WatchEcho(EchoRequest())
        assert (await watch.read()).text == "watching"
        await asyncio.wait_for(gate.entered.wait(), 60)
        drain = asyncio.ensure_future(served.server.drain_and_stop())
        async with refused(grpc.StatusCode.UNAVAILABLE, "SERVICE_STOPPING"):
            await watch.read()
        await asyncio.wait_for(drain, 60)
        assert served.servicer.ended == ["WatchEcho"]


async def test_who_watches_health_or_asks_for_descriptors_holds_up_no_drain() -> None:
    async with (
        serving(drain_seconds=600) as served,
        grpc.aio.insecure_channel(served.server.address) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        asking = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await asking.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        assert (await asking.read()).HasField("list_services_response")
        drain = asyncio.ensure_future(served.server.drain_and_stop())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await watch.code() is grpc.StatusCode.UNAVAILABLE
        assert await asking.code() is grpc.StatusCode.UNAVAILABLE
        await asyncio.wait_for(drain, 60)


async def test_who_watches_health_and_reads_nothing_holds_up_no_drain() -> None:
    async with serving(drain_seconds=0.2) as served:
        host, _, port = served.server.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(_watch_with_no_room())
        # Once the headers of the answer have come, the handler stands where it writes.
        kind = None
        while kind != _HEADERS:
            head = await asyncio.wait_for(reader.readexactly(9), 60)
            await reader.readexactly(int.from_bytes(head[:3]))
            kind = head[3]
        await asyncio.wait_for(served.server.drain_and_stop(), 60)
        writer.close()


async def test_hooks_run_before_calls_are_refused_and_a_bad_one_stops_nothing() -> None:
    released: list[bool] = []
    async with serving() as served:

        async def release() -> None:
            released.append(True)

        async def fail() -> None:
            raise RuntimeError("no")

        served.server.on_drain(fail)
        served.server.on_drain(release)
        await served.server.drain_and_stop()
        assert released == [True]


async def test_a_worker_that_falls_is_started_again_and_ends_with_the_server() -> None:
    runs: list[str] = []
    working = asyncio.Event()

    async def work() -> None:
        runs.append("run")
        if len(runs) == 1:
            raise RuntimeError("fell")
        working.set()
        try:
            await asyncio.Event().wait()
        finally:
            runs.append("ended")

    configured = settings()
    telemetry = Telemetry.start("test", configured)
    authenticator = Authenticator(configured, Keys(), ServiceTokens(SERVICE_KEY, "test"))
    server = Server("test", configured, telemetry, authenticator)
    server.background(work)
    assert runs == []
    await server.start()
    await asyncio.wait_for(working.wait(), 60)
    await server.drain_and_stop()
    assert runs == ["run", "run", "ended"]
    telemetry.shutdown()


async def test_health_can_be_watched_through_the_interceptor() -> None:
    async with serving() as served, grpc.aio.insecure_channel(served.server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        unknown = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="nobody"))
        assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        unknown.cancel()
        assert await health_of(channel) == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_server_that_comes_back_is_found_again() -> None:
    # One that no outgoing connection takes between the two.
    [port] = free_ports(1)
    async with serving(port=port) as first, first.channel() as channel:
        assert (await stub(channel).Echo(EchoRequest(text="1"))).text == "1"
        keys = first.keys
        await first.server.drain_and_stop()
        async with serving(port=port) as second:
            second.keys.known = keys.known
            assert await _eventually(second, channel) == "2"


async def _eventually(_: Served, channel: grpc.aio.Channel) -> str:
    async with asyncio.timeout(60):
        while True:
            outcome = await _outcome(stub(channel).Echo(EchoRequest(text="2"), timeout=1))
            if outcome == "2":
                return outcome


async def _outcome(call: Any) -> str:
    try:
        return str((await call).text)
    except grpc.aio.AioRpcError as error:
        return error.code().name
