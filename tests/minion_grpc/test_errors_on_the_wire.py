"""How failures read to a client."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import grpc
import minion_errors
import pytest
import structlog
from minion_errors import InvalidArgument, MinionError, NotFound, Unavailable, Violation
from minion_grpc import error_table, peer_call, peer_errors
from minion_testing.errors import refused

from tests.minion_grpc.echo import EchoRequest, EchoServicer
from tests.minion_grpc.stage import raw, serving, stub


def raising(error: BaseException) -> EchoServicer:
    async def behave(_request: object, _context: object) -> str:
        raise error

    return EchoServicer(behave)


async def requests() -> AsyncIterator[Any]:
    yield EchoRequest(text="x")


def test_every_class_of_the_tree_has_a_row() -> None:
    classes = {
        kind for kind in vars(minion_errors).values() if isinstance(kind, type) and issubclass(kind, MinionError)
    }
    assert set(error_table.TABLE) == classes - {MinionError}


@pytest.mark.parametrize("kind", list(error_table.TABLE))
async def test_each_error_arrives_with_its_status_reason_and_domain(kind: type[MinionError]) -> None:
    error = kind("It went wrong.", reason="SOME_REASON", metadata={"agent_id": "a1"})
    async with serving(raising(error)) as served, served.channel() as channel:
        async with refused(error_table.TABLE[kind].code, "SOME_REASON") as refusal:
            await stub(channel).Echo(EchoRequest())
        assert refusal.message == "It went wrong."
        assert refusal.domain == "minion.test"
        assert refusal.metadata == {"agent_id": "a1"}


async def test_streams_of_every_arity_tell_their_errors_too() -> None:
    async with serving(raising(NotFound("No.", reason="GONE"))) as served, served.channel() as channel:
        echo = stub(channel)
        async with refused(grpc.StatusCode.NOT_FOUND, "GONE"):
            await echo.Split(EchoRequest()).read()
        async with refused(grpc.StatusCode.NOT_FOUND, "GONE"):
            await echo.Write(EchoRequest()).read()
        async with refused(grpc.StatusCode.NOT_FOUND, "GONE"):
            await echo.Join(requests())
        async with refused(grpc.StatusCode.NOT_FOUND, "GONE"):
            async for _ in echo.Chat(requests()):
                pass


async def test_all_violations_arrive_and_those_that_do_not_fit_are_counted() -> None:
    violations = [Violation(f"messages[{number}].text", "is required") for number in range(500)]
    async with (
        serving(raising(InvalidArgument("Malformed.", violations=violations[:3]))) as served,
        served.channel() as channel,
        refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal,
    ):
        await stub(channel).Echo(EchoRequest())
    assert refusal.violations == {violation.field: "is required" for violation in violations[:3]}
    async with (
        serving(raising(InvalidArgument("x" * 5_000, violations=violations))) as served,
        served.channel() as channel,
        refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal,
    ):
        await stub(channel).Echo(EchoRequest())
    assert len(refusal.violations) + int(refusal.metadata["violations_omitted"]) == 500
    assert len(refusal.violations) > 20


@pytest.mark.parametrize("letter", ["x", "é", "語", "😀", "%"])
def test_what_is_sent_fits_into_the_trailers_that_clients_take(letter: str) -> None:
    violations = [Violation(f"metadata.{letter * 200}", f"is {letter * 200}") for _ in range(100)]
    error = InvalidArgument(letter * 5_000, violations=violations)
    details = error_table.details_of(error, grpc.StatusCode.INVALID_ARGUMENT, "minion.test")
    # grpc-message is percent-encoded, details are base64: 8 KiB in all, some of which is other trailers'.
    assert len(quote(error_table.message_of(error), safe=" ")) + len(base64.b64encode(details)) < 7_900
    assert b"BadRequest" in details


async def test_unavailable_says_when_to_come_back() -> None:
    error = Unavailable("Down.", reason="DATABASE_UNAVAILABLE", retry_after=timedelta(seconds=1.5))
    async with serving(raising(error)) as served, served.channel() as channel:
        async with refused(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE") as refusal:
            await stub(channel).Echo(EchoRequest())
        assert refusal.retry_after_seconds == 1.5


async def test_an_unmapped_exception_tells_nothing_but_the_trace_id() -> None:
    with structlog.testing.capture_logs() as lines:
        async with serving(raising(KeyError("secret detail"))) as served, served.channel() as channel:
            async with refused(grpc.StatusCode.INTERNAL, "INTERNAL") as refusal:
                await stub(channel).Echo(EchoRequest())
            assert "secret" not in refusal.message
            assert refusal.message == error_table.INTERNAL_MESSAGE
            [span] = [span for span in served.spans() if span.kind.name == "SERVER"]
            assert refusal.metadata["trace_id"] == f"{span.context.trace_id:032x}"
            # The log has the exception's text: it may hold what the caller said, and traces go further than logs.
            assert span.attributes is not None
            assert span.attributes["exception.type"] == "KeyError"
            assert "secret" not in span.to_json()
    [line] = [line for line in lines if line.get("code") == "INTERNAL"]
    assert line["log_level"] == "error"
    assert "secret detail" in repr(line["exc_info"])


async def test_a_handlers_own_abort_goes_out_as_it_is() -> None:
    async def abort(_request: object, context: Any) -> str:
        await context.abort(grpc.StatusCode.DATA_LOSS, "as I say")
        return "never"

    async with serving(EchoServicer(abort)) as served, served.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await stub(channel).Echo(EchoRequest())
        assert (refusal.value.code(), refusal.value.details()) == (grpc.StatusCode.DATA_LOSS, "as I say")
        # An abort of the handler's own is on the wire before the call is counted.
        async with asyncio.timeout(60):
            while 'grpc_code="DataLoss"' not in served.metrics():  # noqa: ASYNC110 - a counter tells nobody
                await asyncio.sleep(0.01)


async def test_a_message_above_the_limit_is_refused_with_the_limit() -> None:
    async with serving(max_message_bytes=65_536) as served, served.channel() as channel:
        async with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE") as refusal:
            await stub(channel).Echo(EchoRequest(text="x" * 70_000))
        assert refusal.metadata == {"limit_bytes": "65536"}
        with pytest.raises(grpc.aio.AioRpcError) as far_above:
            await stub(channel).Echo(EchoRequest(text="x" * 1_000_000))
        assert far_above.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

        async def large() -> AsyncIterator[Any]:
            yield EchoRequest(text="x" * 70_000)

        async with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE"):
            await stub(channel).Join(large())


async def test_bytes_that_are_no_message_and_nesting_without_end_are_refused() -> None:
    nested = b""
    for _ in range(150):
        nested = b"\x1a" + _varint(len(nested)) + nested  # field 3, `child`
    async with serving() as served, served.channel() as channel:
        echo = raw(channel, "/minion.test.v1.EchoService/Echo")
        for data in (b"\xff\xff\xff", nested):
            async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
                await echo(data)


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])


async def test_an_unreadable_request_tells_strangers_nothing() -> None:
    async with (
        serving() as served,
        grpc.aio.insecure_channel(served.server.address) as channel,
        refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING"),
    ):
        await raw(channel, "/minion.test.v1.EchoService/Echo")(b"\xff\xff\xff")


@pytest.mark.parametrize("kind", list(error_table.TABLE))
async def test_a_peers_error_comes_back_as_the_error_it_was(kind: type[MinionError]) -> None:
    error = kind("It went wrong.", reason="SOME_REASON", metadata={"agent_id": "a1"})
    async with serving(raising(error)) as served, served.channel() as channel:
        with pytest.raises(MinionError) as translated, peer_call("test"):
            await stub(channel).Echo(EchoRequest())
    if kind in (minion_errors.Unauthenticated, minion_errors.Unavailable):
        # Our own credential was refused, or the peer is down: neither is the caller's fault.
        assert type(translated.value) is Unavailable
        assert translated.value.metadata == {"service": "test", "cause": "SOME_REASON"}
    else:
        assert type(translated.value) is kind
        assert (translated.value.reason, translated.value.metadata) == ("SOME_REASON", {"agent_id": "a1"})


async def test_violations_and_waits_survive_the_way_back() -> None:
    violations = (Violation("text", "is required"),)
    async with serving(raising(InvalidArgument("No.", violations=violations))) as served, served.channel() as channel:
        with pytest.raises(InvalidArgument) as translated, peer_call("test"):
            await stub(channel).Echo(EchoRequest())
    assert translated.value.violations == violations


async def test_a_peer_error_that_nobody_translated_is_not_taken_for_a_fault_of_ours() -> None:
    async with serving(raising(NotFound("No.", reason="GONE"))) as leaf, leaf.channel() as to_leaf:

        async def forward(request: Any, _context: object) -> str:
            return str((await stub(to_leaf).Echo(request)).text)

        async with (
            serving(EchoServicer(forward)) as served,
            served.channel() as channel,
            refused(grpc.StatusCode.NOT_FOUND, "GONE"),
        ):
            await stub(channel).Echo(EchoRequest())


def test_an_error_with_no_details_translates_by_its_code_alone() -> None:
    for code in grpc.StatusCode:
        if code is not grpc.StatusCode.OK:
            error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "text")
            assert peer_errors.translate(error, "test").reason
