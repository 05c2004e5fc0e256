"""Spans on the wire: OTLP over gRPC, encoded at less than half of what the exporter's own encoder takes.

The exporter itself is OpenTelemetry's, yet reads nothing from the environment: `OtlpSettings` does. What is left out of
it are its retries, which block for long and encode anew each time, and its log lines, one a batch: `SpanQueue` does
both.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, SpanFlags, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.trace import Event
from opentelemetry.sdk.util.instrumentation import InstrumentationScope as Scope
from opentelemetry.trace import Link, SpanContext, StatusCode
from opentelemetry.util.types import Attributes

from minion_telemetry import attributes as names
from minion_telemetry.content import MAXIMUM_CHARACTERS
from minion_telemetry.otlp_settings import Destination
from minion_telemetry.spans import RecordedSpan

# Answers after which the same batch may be taken later (OTLP 1.x, "Failures").
_TRANSIENT = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
# A collector that is back is found within seconds: the default waits for two minutes.
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 500),
    # The time that an attempt has, whatever its name: a distance, TLS or a busy machine take more than the first pause.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
# An empty list of headers that is true.
_NO_HEADERS = ","
# What says the same again and again: names and kinds. Ids, counts and costs would push it out.
_RECURRING = frozenset(
    {
        names.DB_NAMESPACE,
        names.DB_QUERY_SUMMARY,
        names.DB_RESPONSE_STATUS_CODE,
        names.DB_SYSTEM_NAME,
        names.ERROR_TYPE,
        names.EXCEPTION_TYPE,
        names.GEN_AI_AGENT_NAME,
        names.GEN_AI_OPERATION_NAME,
        names.GEN_AI_PROVIDER_NAME,
        names.GEN_AI_REQUEST_MODEL,
        names.GEN_AI_RESPONSE_MODEL,
        names.GEN_AI_TOOL_NAME,
        names.GEN_AI_TOOL_TYPE,
        names.MINION_COST_CURRENCY,
        names.MINION_ERROR_REASON,
        names.MINION_MEMORY_PLAN,
        names.MINION_RUN_STATE,
        names.RPC_METHOD,
        names.RPC_RESPONSE_STATUS_CODE,
        names.RPC_SYSTEM_NAME,
        names.SERVER_ADDRESS,
        names.SERVER_PORT,
    }
)
_REMEMBERED = 4_096
_REMEMBERED_CHARACTERS = 64


class NotTakenError(Exception):
    """The collector did not take a batch; `again` tells whether it may take it later."""

    def __init__(self, cause: str, *, again: bool) -> None:
        super().__init__(cause)
        self.again = again


class CollectorExporter(OTLPSpanExporter):
    """Sends spans to a collector, one attempt a batch."""

    def __init__(self, destination: Destination) -> None:
        # What is not given, or is false, it would look up in the environment.
        super().__init__(
            endpoint=destination.endpoint,
            insecure=not destination.is_secure,
            credentials=grpc.ssl_channel_credentials(destination.ca, destination.key, destination.certificate)
            if destination.is_secure
            else None,
            headers=dict(destination.headers) or _NO_HEADERS,
            timeout=destination.timeout,
            compression=grpc.Compression.Gzip if destination.compressed else grpc.Compression.NoCompression,
            channel_options=_CHANNEL_OPTIONS,  # type: ignore[arg-type] # annotated as one pair of strings
            retryable_error_codes=_TRANSIENT,
            meter_provider=NoOpMeterProvider(),
        )

    def send(self, spans: Sequence[RecordedSpan]) -> int:
        """Sends a batch; blocks until it is taken, for `OTEL_EXPORTER_OTLP_TIMEOUT` seconds (10) at most.

        Gives how many spans were left out, for they can't be encoded. Raises NotTakenError.
        """
        if self._client is None:
            raise NotTakenError("the exporter is closed", again=False)
        request, unfit = encode(spans)
        try:
            self._client.Export(request, metadata=self._headers, timeout=self._timeout)
        except grpc.RpcError as fault:
            code = fault.code()
            raise NotTakenError(code.name, again=code in _TRANSIENT) from fault
        except ValueError as fault:
            # What gRPC raises on a channel that was closed meanwhile.
            raise NotTakenError("the exporter is closed", again=False) from fault
        return unfit


def encode(spans: Iterable[RecordedSpan]) -> tuple[ExportTraceServiceRequest, int]:
    """Gives the message that carries these spans, under their resources and scopes, and how many it has no form for."""
    request = ExportTraceServiceRequest()
    unfit = 0
    # By identity: a resource's hash is its JSON, made anew each time.
    resources: dict[int, ResourceSpans] = {}
    scopes: dict[tuple[int, int], ScopeSpans] = {}
    for span in spans:
        try:
            message = _span(span)
        except (TypeError, ValueError):
            # Half a surrogate pair, a number beyond 64 bits: the others of its batch are none the worse for it.
            unfit += 1
            continue
        key = id(span.resource), id(span.scope)
        found = scopes.get(key)
        if found is None:
            within = resources.get(key[0])
            if within is None:
                within = resources[key[0]] = request.resource_spans.add(
                    resource=ResourceMessage(attributes=_attributes(span.resource.attributes)),
                    schema_url=span.resource.schema_url,
                )
            found = scopes[key] = within.scope_spans.add()
            found.scope.CopyFrom(_scope(span.scope))
            found.schema_url = span.scope.schema_url or ""
        found.spans.append(message)
    return request, unfit


def _span(span: RecordedSpan) -> SpanMessage:
    context, parent = span.context, span.parent
    message = SpanMessage(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=context.span_id.to_bytes(8, "big"),
        name=span.name,
        kind=span.kind.value + 1,  # type: ignore[arg-type] # OTLP keeps 0 for "unspecified"
        start_time_unix_nano=span.start_time,
        end_time_unix_nano=span.end_time or 0,
        attributes=_attributes(span.attributes),
        flags=_flags(parent),
    )
    if parent is not None:
        message.parent_span_id = parent.span_id.to_bytes(8, "big")
    if context.trace_state:
        message.trace_state = context.trace_state.to_header()
    if span.status.status_code is not StatusCode.UNSET:
        message.status.CopyFrom(
            Status(code=span.status.status_code.value, message=span.status.description)  # type: ignore[arg-type]
        )
    if span.events:
        message.events.extend(_event(event) for event in span.events)
    if span.links:
        message.links.extend(_link(link) for link in span.links)
    return message


def _flags(parent: SpanContext | None) -> int:
    known = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
    remote = SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK if parent is not None and parent.is_remote else 0
    return known | remote


def _event(event: Event) -> SpanMessage.Event:
    return SpanMessage.Event(name=event.name, time_unix_nano=event.timestamp, attributes=_attributes(event.attributes))


def _link(link: Link) -> SpanMessage.Link:
    return SpanMessage.Link(
        trace_id=link.context.trace_id.to_bytes(16, "big"),
        span_id=link.context.span_id.to_bytes(8, "big"),
        attributes=_attributes(link.attributes),
        flags=_flags(link.context),
    )


@lru_cache(maxsize=64)
def _scope(scope: Scope) -> InstrumentationScope:
    return InstrumentationScope(name=scope.name, version=scope.version or "", attributes=_attributes(scope.attributes))


def _attributes(attributes: Attributes) -> list[KeyValue]:
    if not attributes:
        return []
    return [
        _remembered(name, value)
        if name in _RECURRING
        and (value.__class__ is int or (value.__class__ is str and len(value) <= _REMEMBERED_CHARACTERS))
        else KeyValue(key=name, value=_value(value))
        for name, value in attributes.items()
    ]


@lru_cache(maxsize=_REMEMBERED, typed=True)
def _remembered(name: str, value: str | int) -> KeyValue:
    return KeyValue(key=name, value=_value(value))


def _value(value: object) -> AnyValue:
    match value:
        case str():
            # A span is no store of content.
            return AnyValue(string_value=value if len(value) <= MAXIMUM_CHARACTERS else value[:MAXIMUM_CHARACTERS])
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case Sequence():
            return AnyValue(array_value=ArrayValue(values=[_value(item) for item in value]))
        case _:
            return AnyValue(string_value=str(value))
