"""The encoder's yardstick is OpenTelemetry's own."""

from typing import Any

from minion_telemetry import attributes as names
from minion_telemetry import otlp
from minion_telemetry.content import MAXIMUM_CHARACTERS
from minion_telemetry.otlp import encode
from minion_telemetry.spans import SCOPE, RecordedSpan, SpanMakers
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status as StatusMessage
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

_VALUES: dict[str, Any] = {
    "text": "wörter",
    "long": "x" * 300,
    "empty": "",
    "yes": True,
    "one": 1,
    "no": False,
    "zero": 0,
    "negative": -(2**63),
    "half": 0.5,
    "texts": ["a", "b"],
    "numbers": [1, 2],
    "none": (),
}


class Kept:
    """Keeps the spans that end."""

    def __init__(self) -> None:
        self.spans: list[RecordedSpan] = []

    def take(self, span: RecordedSpan) -> None:
        self.spans.append(span)


def test_a_span_is_encoded_as_opentelemetry_encodes_it() -> None:
    kept = Kept()
    for service in ("minion-session", "minion-memory"):
        makers = SpanMakers(Resource({"service.name": service}, "https://example.org/1"), [kept], ratio=1.0)
        remote = SpanContext(
            5, 7, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("vendor", "x"), ("other", "y")])
        )
        for maker in (makers.get_tracer(SCOPE, "1.0", "https://example.org/2"), makers.get_tracer("b")):
            for kind in SpanKind:
                maker.start_span(kind.name, kind=kind, attributes=_VALUES).end()
            parent = set_span_in_context(NonRecordingSpan(remote))
            links = [
                Link(SpanContext(9, 9, is_remote=True)),
                Link(SpanContext(8, 8, is_remote=False), {"why": "because"}),
            ]
            span = maker.start_span("all", parent, links=links, attributes=_VALUES)
            span.add_event("kept", {"at": 1.5, "one": 1, "yes": True})
            span.record_exception(RuntimeError("what the user said"))
            span.set_status(Status(StatusCode.ERROR, "IT_BROKE"))
            span.end()
            fine = maker.start_span("fine", set_span_in_context(span))
            fine.set_status(StatusCode.OK)
            fine.end()
    assert len(kept.spans) == 2 * 2 * (len(SpanKind) + 2)
    encoded, unfit = encode(kept.spans)
    assert unfit == 0
    assert b"what the user said" not in encoded.SerializeToString()
    assert normal(encoded) == normal(encode_spans([span.readable() for span in kept.spans]))


def test_a_text_that_is_too_long_is_cut() -> None:
    kept = Kept()
    maker = SpanMakers(Resource({}), [kept], ratio=1.0).get_tracer("a")
    maker.start_span("work", attributes={"text": "x" * (MAXIMUM_CHARACTERS + 1)}).end()
    encoded, _ = encode(kept.spans)
    [attribute] = encoded.resource_spans[0].scope_spans[0].spans[0].attributes
    assert attribute.value.string_value == "x" * MAXIMUM_CHARACTERS


def test_ids_and_counts_push_out_nothing_that_recurs() -> None:
    kept = Kept()
    maker = SpanMakers(Resource({}), [kept], ratio=1.0).get_tracer("a")

    def encoded(number: int) -> int:
        values: dict[str, str | int] = {
            names.MINION_RUN_ID: f"run {number}",
            names.GEN_AI_USAGE_INPUT_TOKENS: number,
            "other": str(number),
            names.RPC_METHOD: "minion.test.v1.EchoService/Rare",
        }
        maker.start_span("work", attributes=values).end()
        encode(kept.spans)
        kept.spans.clear()
        return otlp._remembered.cache_info().misses

    before = encoded(0)
    assert encoded(10_000) == before
    for number in range(1, 5_000):
        encoded(number)
    assert encoded(10_001) == before


def normal(request: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    """Takes away what says nothing: an empty status."""
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                if span.status == StatusMessage():
                    span.ClearField("status")
    return request
