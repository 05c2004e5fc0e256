"""What is counted of RPCs: from 0 on, and read while it changes."""

import grpc
from minion_grpc.metrics import RpcMetrics
from minion_testing.scraping import scraped_meanwhile
from prometheus_client import CollectorRegistry, generate_latest

from tests.minion_grpc.echo import SERVICE, EchoRequest
from tests.minion_grpc.stage import serving, stub


async def test_methods_are_counted_before_they_are_called() -> None:
    async with serving() as served, served.channel() as channel:
        before = served.metrics()
        await stub(channel).Echo(EchoRequest(text="x"))
        after = served.metrics()
    labels = f'grpc_method="Echo",grpc_service="{SERVICE}",grpc_type="unary"'
    assert f"grpc_server_started_total{{{labels}}} 0.0" in before
    assert f'grpc_server_handled_total{{grpc_code="OK",{labels}}} 0.0' in before
    assert "grpc_server_handling_seconds_count" not in before
    assert f"grpc_server_handling_seconds_count{{{labels}}} 1.0" in after
    assert 'grpc_type="bidi_stream"' in before


def test_a_scrape_stands_what_is_added_meanwhile() -> None:
    registry = CollectorRegistry()
    metrics = RpcMetrics(registry)
    codes = [code.name for code in grpc.StatusCode]

    def work(number: int) -> None:
        method = metrics.method("unary", "s", f"M{number // len(codes)}")
        method.started()
        method.handled(codes[number % len(codes)], 0.001)

    rounds = 300 * len(codes)
    texts = scraped_meanwhile(registry, work, rounds=rounds)
    handled = [line for line in texts[-1].splitlines() if line.startswith("grpc_server_handled_total{")]
    assert len(handled) == rounds
    assert all(line.endswith(" 1.0") for line in handled)


def test_a_method_is_one_whoever_asks_for_it() -> None:
    registry = CollectorRegistry()
    metrics = RpcMetrics(registry)
    assert metrics.method("unary", "s", "M") is metrics.method("unary", "s", "M")
    assert generate_latest(registry).decode().count("grpc_server_started_total{") == 1
