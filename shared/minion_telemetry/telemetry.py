"""What one service measures and traces with; nothing of it is global, so that five services share a process."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import metadata
from types import TracebackType

from minion_errors import MinionError
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.resources import Resource, ServiceInstanceIdResourceDetector
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from minion_telemetry import attributes, pairs
from minion_telemetry.content import Content
from minion_telemetry.otlp import CollectorExporter
from minion_telemetry.settings import TelemetrySettings
from minion_telemetry.span_queue import Exporter, Foreign, SpanCounts, SpanQueue
from minion_telemetry.spans import SCOPE, SpanMakers

# When a series began nobody asks, and it doubles the counters'. This one is the process'.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Telemetry:
    """One service's tracer and metrics registry."""

    def __init__(
        self,
        service: str,
        provider: SpanMakers,
        queues: Sequence[SpanQueue],
        registry: CollectorRegistry,
        *,
        metrics: bool,
        content: bool,
    ) -> None:
        self.service = service
        self.tracer_provider = provider
        self._queues = queues
        # The address states which version of the semantic conventions its spans' names are of.
        self.tracer: Tracer = provider.get_tracer(SCOPE, schema_url=attributes.SCHEMA_URL)
        self.content = Content(recorded=content)
        self.registry = registry
        self.metrics_enabled = metrics

    @classmethod
    def start(
        cls, service: str, settings: TelemetrySettings, *, span_exporters: Sequence[SpanExporter] = ()
    ) -> "Telemetry":
        """Starts tracing and metrics for a service such as `session`.

        Spans go to the OTLP endpoint, where one is set, and to `span_exporters`. Where there is neither, or tracing is
        off, spans are not recorded, yet trace ids still travel and stand in logs and errors.
        """
        exporters: list[Exporter] = []
        if settings.tracing_enabled:
            exporters += [Foreign(exporter) for exporter in span_exporters]
            if destination := settings.otlp_destination:
                exporters.append(CollectorExporter(destination))
        registry = _registry()
        counts = SpanCounts(registry)
        # One each: an exporter that fails keeps nothing from another.
        queues = [SpanQueue(exporter, counts, service=service) for exporter in exporters]
        return cls(
            service,
            SpanMakers(_resource(service, settings), queues, ratio=settings.trace_ratio),
            queues,
            registry,
            metrics=settings.metrics_enabled,
            content=settings.trace_content,
        )

    def span(
        self,
        name: str,
        values: Mapping[str, AttributeValue] | None = None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        context: Context | None = None,
        links: Sequence[Link] = (),
    ) -> AbstractContextManager[Span]:
        """Makes a span current for a block. What the block raises marks it by its type or reason, never by its text."""
        return _Block(self.tracer.start_span(name, context, kind, values, links, record_exception=False))

    def flush(self) -> None:
        """Hands finished spans to the exporters now, each within 5 seconds.

        A batch that was begun by then is waited for: `OTEL_EXPORTER_OTLP_TIMEOUT` seconds (10) more, where it hangs.
        """
        for queue in self._queues:
            queue.flush(5.0)

    def shutdown(self) -> None:
        """Exports what is finished and stops; blocks for some seconds at most, so call it off the event loop."""
        for queue in self._queues:
            queue.shutdown()


class _Block:
    """A span that is current for a block. A generator would take twice as long, and another one of the API's more."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> Span:
        self._token = attach(set_span_in_context(self._span))
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        detach(self._token)
        if error is not None:
            fail(self._span, error)
        self._span.end()


def fail(span: Span, error: BaseException) -> None:
    """Marks a span as failed, by what can't hold anybody's words."""
    span.set_attribute(attributes.ERROR_TYPE, error.reason if isinstance(error, MinionError) else type(error).__name__)
    span.set_status(Status(StatusCode.ERROR))


def _resource(service: str, settings: TelemetrySettings) -> Resource:
    # Resource.create would read the environment, and run whatever detectors that names.
    return Resource(
        {
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": metadata.version("opentelemetry-sdk"),
            **ServiceInstanceIdResourceDetector().detect().attributes,
            **pairs.attributes(settings.resource_attributes or ""),
            "service.name": f"minion-{service}",
            "service.namespace": settings.name,
            "deployment.environment.name": settings.environment,
        },
        attributes.SCHEMA_URL,
    )


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    Info("minion_build", "What runs here.", registry=registry).info({"version": _version()})
    return registry


def _version() -> str:
    try:
        return metadata.version("minion-agents")
    except metadata.PackageNotFoundError:
        # The source tree alone, on Python's path.
        return "unknown"
