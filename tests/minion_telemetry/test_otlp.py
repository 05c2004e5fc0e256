"""The encoder's yardstick is OpenTelemetry's own."""

from minion_telemetry.otlp import encode
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status as StatusMessage
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
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

_VALUES = {
    "text": "wörter",
    "long": "x" * 300,
    "empty": "",
    "yes": True,
    "one": 1,
    "no": False,
    "zero": 0,
    "negative": -(2**63),
    "half": 0.5,
    "raw": b"\x00\xff",
    "texts": ["a", "b"],
    "numbers": [1, 2],
    "none": [],
}


def test_a_span_is_encoded_as_opentelemetry_encodes_it() -> None:
    spans = InMemorySpanExporter()
    for service in ("minion-session", "minion-memory"):
        provider = TracerProvider(
            resource=Resource({"service.name": service}, "https://example.org/1"),
            span_limits=SpanLimits(max_span_attributes=13, max_events=1, max_links=1),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(SimpleSpanProcessor(spans))
        remote = SpanContext(
            5, 7, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("vendor", "x"), ("other", "y")])
        )
        for tracer in (provider.get_tracer("a", "1.0", "https://example.org/2"), provider.get_tracer("b")):
            for kind in SpanKind:
                tracer.start_span(kind.name, kind=kind, attributes=_VALUES).end()
            parent = set_span_in_context(NonRecordingSpan(remote))
            links = [
                Link(SpanContext(9, 9, is_remote=True)),
                Link(SpanContext(8, 8, is_remote=False), {"why": "because"}),
            ]
            span = tracer.start_span("all", parent, links=links, attributes={**_VALUES, "one more": 1})
            span.add_event("dropped")
            span.add_event("kept", {"at": 1.5, "one": 1, "yes": True})
            span.set_status(Status(StatusCode.ERROR, "it broke"))
            span.end()
            tracer.start_span("fine", set_span_in_context(span)).set_status(StatusCode.OK)
    finished = spans.get_finished_spans()
    assert len(finished) == 2 * 2 * (len(SpanKind) + 1)
    assert normal(encode(finished)) == normal(encode_spans(finished))


def normal(request: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    """Takes away what says nothing: an empty status."""
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                if span.status == StatusMessage():
                    span.ClearField("status")
    return request
