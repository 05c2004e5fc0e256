"""Time and cancellation travel: what the client no longer wants, nobody goes on doing."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from minion_errors import DeadlineExceeded
from minion_grpc import connect, deadline
from minion_testing.errors import refused

from tests.minion_grpc.echo import SERVICE, EchoRequest, EchoServicer
from tests.minion_grpc.stage import Served, serving, stub

CONNECT = "connect"


class Leaf:
    """A handler that never answers (but who only wants to be connected), and notes how it ended."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.remaining: float | None = None

    async def __call__(self, request: Any, _context: Any) -> str:
        if request.text == CONNECT:
            return CONNECT
        self.remaining = deadline.remaining()
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        return "never"


def forwarding(channel: grpc.aio.Channel) -> EchoServicer:
    async def forward(request: Any, _context: Any) -> str:
        return str((await stub(channel).Echo(request)).text)

    return EchoServicer(forward)


async def chain(stack: AsyncExitStack, leaf: Leaf, *, opentelemetry: bool) -> Served:
    """Runs three servers, each of which calls the next, and gives the first."""
    served = await stack.enter_async_context(serving(EchoServicer(leaf)))
    for _ in range(2):
        channel = connect(
            served.server.address,
            telemetry=served.telemetry,
            tls=None,
            tokens=served.tokens,
            instrumented=opentelemetry,
        )
        await stack.enter_async_context(channel)
        served = await stack.enter_async_context(serving(forwarding(channel)))
    return served


@pytest.mark.parametrize("opentelemetry", [False, True], ids=["ours", "inside OpenTelemetry's"])
async def test_cancelling_the_first_of_three_calls_stops_the_last(opentelemetry: bool) -> None:
    leaf = Leaf()
    async with AsyncExitStack() as stack:
        first = await chain(stack, leaf, opentelemetry=opentelemetry)
        channel = await stack.enter_async_context(first.channel())
        call = stub(channel).Echo(EchoRequest())
        task = asyncio.ensure_future(asyncio.wait_for(call, 60))
        await asyncio.wait_for(leaf.begun.wait(), 60)
        task.cancel()
        await asyncio.wait_for(leaf.ended.wait(), 60)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_deadline_reaches_the_third_server_and_stops_it() -> None:
    leaf = Leaf()
    async with AsyncExitStack() as stack:
        first = await chain(stack, leaf, opentelemetry=False)
        channel = await stack.enter_async_context(first.channel())
        # To connect three times is none of what the deadline's time is for: a busy machine could need all of it.
        await stub(channel).Echo(EchoRequest(text=CONNECT))
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await stub(channel).Echo(EchoRequest(), timeout=3)
        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert leaf.remaining is not None
        assert 0 < leaf.remaining < 4
        await asyncio.wait_for(leaf.ended.wait(), 60)


async def test_each_hop_keeps_a_margin_back() -> None:
    # Of two margins each hop's rounding on the wire takes back up to a hundredth.
    enough, least, leaf = 9 - deadline.MARGIN_SECONDS / 4, 9.0, Leaf()
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context((await chain(stack, leaf, opentelemetry=False)).channel())
        await stub(channel).Echo(EchoRequest(text=CONNECT))
        for _ in range(20):
            leaf.begun.clear()
            call = stub(channel).Echo(EchoRequest(), timeout=9)
            await asyncio.wait_for(leaf.begun.wait(), 60)
            call.cancel()
            assert leaf.remaining is not None
            # The least counts: gRPC takes a deadline from one clock to another, and is late where it is passed over.
            least = min(least, leaf.remaining)
            if least < enough:
                break
    assert least < enough


async def test_a_shorter_timeout_of_ones_own_is_kept() -> None:
    leaf = Leaf()
    async with serving(EchoServicer(leaf)) as served, served.channel() as channel:
        await stub(channel).Echo(EchoRequest(text=CONNECT))
        with deadline.within(60), pytest.raises(grpc.aio.AioRpcError) as refusal:
            await stub(channel).Echo(EchoRequest(), timeout=2)
        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert leaf.remaining is not None
        assert leaf.remaining < 2.1  # gRPC rounds the timeout up on the wire


async def test_no_call_goes_out_when_no_time_is_left() -> None:
    leaf = Leaf()
    async with serving(EchoServicer(leaf)) as served, served.channel() as channel:
        with deadline.within(0.001), pytest.raises(DeadlineExceeded):
            await stub(channel).Echo(EchoRequest())
        assert not leaf.begun.is_set()


async def test_a_call_without_a_deadline_gets_the_default_one() -> None:
    leaf = Leaf()
    async with serving(EchoServicer(leaf), default_deadline_seconds=2) as served, served.channel() as channel:
        async with refused(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"):
            await stub(channel).Echo(EchoRequest())
        assert leaf.ended.is_set()
        assert leaf.remaining is not None
        assert leaf.remaining < 2.1  # gRPC rounds the timeout up on the wire


async def test_a_method_may_have_a_default_of_its_own_and_streams_have_none() -> None:
    async def left(_request: Any, _context: Any) -> str:
        return str(deadline.remaining())

    deadlines = {f"/{SERVICE}/Echo": 100.0}
    async with serving(EchoServicer(left), deadlines=deadlines) as served, served.channel() as channel:
        assert 60 < float((await stub(channel).Echo(EchoRequest())).text) < 101
        assert [answer.text async for answer in stub(channel).Split(EchoRequest())] == ["None"]


async def test_a_timeout_of_the_handlers_own_is_not_taken_for_the_calls() -> None:
    async def slow(_request: Any, _context: Any) -> str:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
        return "never"

    async with (
        serving(EchoServicer(slow)) as served,
        served.channel() as channel,
        refused(grpc.StatusCode.INTERNAL, "INTERNAL"),
    ):
        await stub(channel).Echo(EchoRequest())


async def test_work_in_tasks_of_a_call_knows_its_deadline() -> None:
    async def fan_out(_request: Any, _context: Any) -> str:
        async def part() -> float | None:
            return deadline.remaining()

        async with asyncio.TaskGroup() as group:
            task = group.create_task(part())
        return str(task.result())

    async with serving(EchoServicer(fan_out)) as served, served.channel() as channel:
        assert 0 < float((await stub(channel).Echo(EchoRequest(), timeout=60)).text) < 61


@pytest.mark.parametrize("method", ["Split", "WatchEcho"])
async def test_a_cancelled_stream_ends_its_generator(method: str) -> None:
    leaf = Leaf()
    async with serving(EchoServicer(leaf)) as served, served.channel() as channel:
        call = getattr(stub(channel), method)(EchoRequest())
        await asyncio.wait_for(leaf.begun.wait(), 60)
        call.cancel()
        await asyncio.wait_for(leaf.ended.wait(), 60)
        await _until(lambda: served.servicer.ended == [method])
        await _until(lambda: 'grpc_code="Canceled"' in served.metrics())


@pytest.mark.parametrize("method", ["Split", "Write", "WatchEcho"])
async def test_a_stream_that_its_callers_deadline_ends_is_canceled_however_late_we_hear_of_it(method: str) -> None:
    ended = asyncio.Event()

    async def listens(request: Any, _context: Any) -> str:
        if request.text == CONNECT:
            return CONNECT
        try:
            await asyncio.Event().wait()
        finally:
            # The client's cancellation may come before the deadline or after it: here it always comes after.
            while (left := deadline.remaining()) is not None and left > 0:  # noqa: ASYNC110 - a clock has no event
                await asyncio.sleep(left)
            ended.set()
        return "never"

    async with serving(EchoServicer(listens)) as served, served.channel() as channel:
        await stub(channel).Echo(EchoRequest(text=CONNECT))
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            async for _ in getattr(stub(channel), method)(EchoRequest(), timeout=2):
                pass
        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(ended.wait(), 60)
        await _until(lambda: f'grpc_code="Canceled",grpc_method="{method}"' in served.metrics())
        assert "DeadlineExceeded" not in served.metrics()


async def test_a_cancelled_call_is_counted_and_its_span_says_so() -> None:
    leaf = Leaf()
    async with serving(EchoServicer(leaf)) as served, served.channel() as channel:
        call = stub(channel).Echo(EchoRequest())
        await asyncio.wait_for(leaf.begun.wait(), 60)
        call.cancel()
        await _until(lambda: any(span.kind.name == "SERVER" for span in served.spans()))
        [span] = [span for span in served.spans() if span.kind.name == "SERVER"]
        assert span.attributes is not None
        assert span.attributes["rpc.response.status_code"] == "CANCELLED"
        assert span.status.description == "CANCELLED"


async def _until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event: a span's end, a counter
            await asyncio.sleep(0.01)
