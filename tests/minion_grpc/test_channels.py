"""What a channel does by itself: retries, and traces that go on."""

import asyncio
from typing import Any

import grpc
import pytest
from minion_errors import Unavailable
from minion_grpc import channel as channels
from minion_grpc import connect, propagation
from minion_testing.errors import refused
from minion_testing.fault_proxy import FaultProxy, Mode
from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN_CONTEXT
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tests.minion_grpc.echo import SERVICE, EchoRequest, EchoServicer
from tests.minion_grpc.stage import serving, stub

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Failing:
    """A handler that is unavailable some times before it answers."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.calls = 0

    async def __call__(self, _request: Any, _context: Any) -> str:
        self.calls += 1
        self.left -= 1
        if self.left >= 0:
            raise Unavailable("Not now.", reason="DATABASE_UNAVAILABLE")
        return "now"


async def test_a_named_method_is_tried_again_when_the_peer_is_unavailable() -> None:
    failing = Failing(2)
    async with (
        serving(EchoServicer(failing)) as served,
        connect(
            served.server.address,
            telemetry=served.telemetry,
            tls=None,
            tokens=served.tokens,
            retryable=[f"/{SERVICE}/Echo"],
        ) as channel,
    ):
        assert (await stub(channel).Echo(EchoRequest(), timeout=60)).text == "now"
    assert failing.calls == 3


async def test_tries_come_to_an_end() -> None:
    failing = Failing(100)
    async with (
        serving(EchoServicer(failing)) as served,
        connect(
            served.server.address,
            telemetry=served.telemetry,
            tls=None,
            tokens=served.tokens,
            retryable=[f"/{SERVICE}/Echo"],
        ) as channel,
        refused(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"),
    ):
        await stub(channel).Echo(EchoRequest(), timeout=60)
    assert failing.calls == 4


async def test_any_other_method_is_tried_once() -> None:
    failing = Failing(1)
    async with (
        serving(EchoServicer(failing)) as served,
        connect(served.server.address, telemetry=served.telemetry, tls=None, tokens=served.tokens) as channel,
        refused(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"),
    ):
        await stub(channel).Echo(EchoRequest(), timeout=60)
    assert failing.calls == 1


async def test_a_response_above_the_channels_limit_is_refused() -> None:
    async def large(_request: Any, _context: Any) -> str:
        return "x" * 100_000

    async with (
        serving(EchoServicer(large)) as served,
        connect(
            served.server.address, telemetry=served.telemetry, tls=None, tokens=served.tokens, max_message_bytes=50_000
        ) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await stub(channel).Echo(EchoRequest())
        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_ones_own_credential_in_the_metadata_is_kept() -> None:
    async with (
        serving() as served,
        connect(served.server.address, telemetry=served.telemetry, tls=None, credential="mnk_wrong") as channel,
    ):
        metadata = (("authorization", f"Bearer {served.keys.issue()}"),)
        assert (await stub(channel).Echo(EchoRequest(text="x"), metadata=metadata)).text == "x"


def test_a_traceparent_is_read_as_it_was_written() -> None:
    context = propagation.extract([("traceparent", TRACEPARENT), ("tracestate", "vendor=1")])
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, context)
    assert carrier == {"traceparent": TRACEPARENT, "tracestate": "vendor=1"}
    assert trace.get_current_span(context).get_span_context().is_remote


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        TRACEPARENT[:-1],
        TRACEPARENT.upper(),
        f"{TRACEPARENT}x",
        f"ff{TRACEPARENT[2:]}",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "x" * 100_000,
        b"bytes",
    ],
)
def test_a_bad_traceparent_begins_a_new_trace(value: str | bytes) -> None:
    context = propagation.extract([("traceparent", value)])
    assert trace.get_current_span(context).get_span_context() == INVALID_SPAN_CONTEXT


async def test_a_connection_that_takes_its_time_is_waited_for(patience: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "CONNECT_MILLISECONDS", patience)
    async with serving() as served, FaultProxy("127.0.0.1", served.server.port) as proxy:
        proxy.set_mode(Mode.STALL)
        async with connect(
            f"127.0.0.1:{proxy.port}", telemetry=served.telemetry, tls=None, tokens=served.tokens
        ) as channel:
            call = stub(channel).Echo(EchoRequest(text="x"), timeout=60)
            await asyncio.sleep(2.3)  # the wait is the subject: a handshake over a distance, or of a busy peer
            proxy.set_mode(Mode.PASS)
            assert (await call).text == "x"
