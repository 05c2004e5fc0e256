"""What a call leaves behind: a span, metrics, one log line."""

import asyncio
import io
from typing import Any
from uuid import uuid4

import grpc
import orjson
import pytest
import structlog
from minion_errors import DeadlineExceeded, InvalidArgument
from minion_grpc import connect, deadline
from minion_telemetry import attributes
from minion_testing.errors import refused
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from tests.minion_grpc.echo import SERVICE, EchoRequest, EchoServicer
from tests.minion_grpc.stage import serving, stub


def written(log: io.BytesIO, event: str) -> list[dict[str, Any]]:
    return [line for line in map(orjson.loads, log.getvalue().splitlines()) if line["event"] == event]


async def test_one_trace_crosses_all_hops_and_the_log_lines_share_its_id(log: io.BytesIO) -> None:
    async with (
        serving() as leaf,
        connect(leaf.server.address, telemetry=leaf.telemetry, tls=None, tokens=leaf.tokens) as to_leaf,
    ):

        async def forward(request: Any, _context: Any) -> str:
            return str((await stub(to_leaf).Echo(request)).text)

        async with serving(EchoServicer(forward)) as served, served.channel() as channel:
            await stub(channel).Echo(EchoRequest(text="hello"))
            spans = {*served.spans(), *leaf.spans()}
    assert len({span.context.trace_id for span in spans}) == 1
    by_id = {span.context.span_id: span for span in spans}
    depth = 0
    for span in spans:
        steps, at = 0, span
        while at.parent is not None:
            steps, at = steps + 1, by_id[at.parent.span_id]
        depth = max(depth, steps)
    assert depth == 3  # client, server, client, server
    assert {span.kind.name for span in spans} == {"CLIENT", "SERVER"}
    lines = written(log, "rpc")
    assert {line["trace_id"] for line in lines} == {f"{next(iter(spans)).context.trace_id:032x}"}
    assert len(lines) == 2


async def test_the_log_line_says_who_called_what_and_how_it_ended(log: io.BytesIO) -> None:
    tenant_id = uuid4()
    async with serving() as served, served.channel(served.keys.issue(tenant_id)) as channel:
        await stub(channel).Echo(EchoRequest(text="hello"))
    [line] = written(log, "rpc")
    assert line["method"] == f"/{SERVICE}/Echo"
    assert line["code"] == "OK"
    assert line["tenant_id"] == str(tenant_id)
    assert line["principal"].startswith("key:")
    assert line["service"] == "test"
    assert line["level"] == "info"
    assert line["duration_ms"] > 0


async def test_a_denied_call_says_whose_it_was_in_the_log_alone(log: io.BytesIO) -> None:
    tenant_id = uuid4()
    async with (
        serving() as served,
        served.channel(served.keys.issue(tenant_id)) as channel,
        refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING") as refusal,
    ):
        await stub(channel).Secret(EchoRequest())
    [line] = written(log, "rpc")
    assert line["about"]["principal"].startswith("key:")
    assert str(tenant_id) in line["error"]
    assert str(tenant_id) not in refusal.message


async def test_a_handlers_lines_carry_the_call_and_hide_what_is_personal(log: io.BytesIO) -> None:
    async def speak(_request: Any, _context: Any) -> str:
        structlog.get_logger().info("noted", text="write to ann@example.com", parts=[{"to": "bob@example.com"}])
        return ""

    async with serving(EchoServicer(speak)) as served, served.channel() as channel:
        await stub(channel).Echo(EchoRequest())
    [line] = written(log, "noted")
    assert line["text"] == "write to [EMAIL]"
    assert line["parts"] == [{"to": "[EMAIL]"}]
    assert line["trace_id"] == written(log, "rpc")[0]["trace_id"]
    assert line["tenant_id"] == written(log, "rpc")[0]["tenant_id"]


async def test_a_users_address_is_in_no_line_and_on_no_span(log: io.BytesIO) -> None:
    async with (
        serving() as served,
        served.channel(served.tokens.mint(uuid4(), "user:ann@example.com")) as channel,
    ):
        await stub(channel).Echo(EchoRequest())
        shown = {(span.attributes or {}).get("minion.principal") for span in served.spans()}
    assert shown == {None, "user:[EMAIL]"}
    assert [line["principal"] for line in written(log, "rpc")] == ["user:[EMAIL]"]
    assert b"ann@" not in log.getvalue()


async def test_a_call_leaves_nothing_of_itself_to_the_next(log: io.BytesIO) -> None:
    async with serving() as served:
        async with served.channel() as channel:
            await stub(channel).Echo(EchoRequest())
        async with grpc.aio.insecure_channel(served.server.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await stub(channel).Echo(EchoRequest())
    first, second = written(log, "rpc")
    assert "tenant_id" in first
    assert "tenant_id" not in second
    assert first["trace_id"] != second["trace_id"]
    assert not trace.get_current_span().get_span_context().is_valid


async def test_the_metrics_count_rate_errors_and_duration_per_method() -> None:
    async with serving() as served, served.channel() as channel:
        for _ in range(3):
            await stub(channel).Echo(EchoRequest(text="x"))
        with pytest.raises(grpc.aio.AioRpcError):
            await stub(channel).Secret(EchoRequest())
        value = served.telemetry.registry.get_sample_value
        labels = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "Echo"}
        assert value("grpc_server_started_total", labels) == 3
        assert value("grpc_server_handled_total", {**labels, "grpc_code": "OK"}) == 3
        assert value("grpc_server_handling_seconds_count", labels) == 3
        labels["grpc_method"] = "Secret"
        assert value("grpc_server_handled_total", {**labels, "grpc_code": "PermissionDenied"}) == 1


async def test_metrics_that_are_off_are_not_there() -> None:
    async with serving(metrics_enabled=False) as served, served.channel() as channel:
        await stub(channel).Echo(EchoRequest(text="x"))
        assert "grpc_server" not in served.metrics()


async def test_a_server_span_carries_names_status_tenant_and_reason() -> None:
    async with serving() as served, served.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await stub(channel).Secret(EchoRequest())
        [span] = [span for span in served.spans() if span.kind.name == "SERVER"]
    assert span.name == f"/{SERVICE}/Secret"
    assert span.attributes is not None
    assert span.attributes["rpc.system.name"] == "grpc"
    assert span.attributes["rpc.method"] == f"{SERVICE}/Secret"
    assert span.attributes["rpc.response.status_code"] == "PERMISSION_DENIED"
    assert span.attributes["minion.error.reason"] == "PERMISSION_MISSING"
    assert span.status.is_unset  # the client's fault is no failure of the server
    assert span.resource.attributes["service.name"] == "minion-test"


async def test_a_call_has_a_span_on_both_sides_that_tell_of_it_by_its_code() -> None:
    async with serving() as served, served.channel() as channel:
        await stub(channel).Echo(EchoRequest(text="x"))
        assert [response.text async for response in stub(channel).Split(EchoRequest(text="a b"))]
        with pytest.raises(grpc.aio.AioRpcError):
            await stub(channel).Secret(EchoRequest())
        spans = served.spans()
    clients = {span.name.rpartition("/")[2]: span for span in spans if span.kind.name == "CLIENT"}
    servers = {span.name.rpartition("/")[2]: span for span in spans if span.kind.name == "SERVER"}
    host, _, port = served.server.address.rpartition(":")
    for method, code in (("Echo", "OK"), ("Split", "OK"), ("Secret", "PERMISSION_DENIED")):
        client, server = clients[method], servers[method]
        assert client.attributes is not None
        assert client.attributes["rpc.method"] == f"{SERVICE}/{method}"
        assert client.attributes["rpc.response.status_code"] == code
        assert (client.attributes["server.address"], client.attributes["server.port"]) == (host, int(port))
        assert server.parent is not None
        assert server.parent.span_id == client.context.span_id
        assert client.end_time is not None
        assert client.end_time >= (server.start_time or 0)
    # The peer's message may quote what was asked.
    assert clients["Secret"].status.description == "PERMISSION_DENIED"
    assert clients["Echo"].status.is_unset


async def test_spans_of_opentelemetrys_own_stand_apart_and_hold_nothing_that_a_peer_said() -> None:
    async def fail(request: Any, _context: Any) -> str:
        raise InvalidArgument(f"There is no {request.text}.", reason="TEXT_UNKNOWN")

    async with serving(EchoServicer(fail)) as served:
        channel = connect(
            served.server.address,
            telemetry=served.telemetry,
            tls=None,
            credential=served.keys.issue(),
            instrumented=True,
        )
        async with channel:
            with pytest.raises(grpc.aio.AioRpcError, match="canary"):
                await stub(channel).Echo(EchoRequest(text="canary"))
            with pytest.raises(grpc.aio.AioRpcError, match="canary"):
                [_ async for _ in stub(channel).WatchEcho(EchoRequest(text="canary"))]
        assert not [span.name for span in served.spans() if "canary" in span.to_json()]
        spans = [span for span in served.spans() if span.kind.name == "CLIENT"]
    assert {span.name.rpartition("/")[2] for span in spans} == {"Echo", "WatchEcho"}
    for span in spans:
        assert span.instrumentation_scope is not None
        assert span.instrumentation_scope.name == "opentelemetry.instrumentation.grpc"
        # Their names are of older conventions than ours.
        assert span.instrumentation_scope.schema_url not in {None, "", attributes.SCHEMA_URL}
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description is None


async def test_a_stream_that_is_broken_off_ends_its_span() -> None:
    async def wait(_request: Any, _context: Any) -> str:
        await asyncio.Event().wait()
        return "never"

    async with serving(EchoServicer(wait)) as served, served.channel() as channel:
        call = stub(channel).WatchEcho(EchoRequest(text="x"))
        await anext(aiter(call))
        call.cancel()
        async with asyncio.timeout(60):
            while not [span for span in served.spans() if span.kind.name == "CLIENT"]:  # noqa: ASYNC110 - a span's end
                await asyncio.sleep(0.01)
        [span] = [span for span in served.spans() if span.kind.name == "CLIENT"]
        assert span.attributes is not None
        assert span.attributes["rpc.response.status_code"] == "CANCELLED"


async def test_a_call_for_which_no_time_is_left_says_so() -> None:
    async with serving() as served, served.channel() as channel:
        with deadline.within(0.001), pytest.raises(DeadlineExceeded):
            await stub(channel).Echo(EchoRequest())
        [span] = served.spans()
        assert span.attributes is not None
        assert span.attributes["error.type"] == "DEADLINE_EXCEEDED"
