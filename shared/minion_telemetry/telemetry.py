"""What one service measures and traces with; nothing of it is global, so that five services share a process."""

from collections.abc import Sequence
from importlib import metadata

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Tracer
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from minion_telemetry.settings import TelemetrySettings

# Values longer than this are cut: a span is no store of content.
_MAXIMUM_ATTRIBUTE_CHARACTERS = 8_192


class Telemetry:
    """One service's tracer and metrics registry."""

    def __init__(self, service: str, provider: TracerProvider, registry: CollectorRegistry, *, metrics: bool) -> None:
        self.service = service
        self.tracer_provider = provider
        self.tracer: Tracer = provider.get_tracer("minion")
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
        exporters = list(span_exporters)
        if settings.tracing_enabled and settings.otlp_endpoint:
            exporters.append(
                OTLPSpanExporter(
                    endpoint=settings.otlp_endpoint, insecure=not settings.otlp_endpoint.startswith("https")
                )
            )
        recording = settings.tracing_enabled and bool(exporters)
        provider = TracerProvider(
            sampler=_sampler(settings.trace_ratio) if recording else ALWAYS_OFF,
            resource=Resource.create(
                {
                    "service.name": f"minion-{service}",
                    "service.namespace": settings.name,
                    "deployment.environment.name": settings.environment,
                }
            ),
            span_limits=SpanLimits(max_attribute_length=_MAXIMUM_ATTRIBUTE_CHARACTERS),
            # The drain flushes; a second flush at exit would wait for a collector that may be gone.
            shutdown_on_exit=False,
        )
        for exporter in exporters:
            provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1_000))
        return cls(service, provider, _registry(), metrics=settings.metrics_enabled)

    def flush(self) -> None:
        """Hands finished spans to the exporters now; blocks for 5 seconds at most."""
        self.tracer_provider.force_flush(5_000)

    def shutdown(self) -> None:
        """Exports what is finished and stops; blocks for some seconds at most, so call it off the event loop."""
        self.tracer_provider.shutdown()


def _sampler(ratio: float) -> Sampler:
    # A caller that sampled its trace is followed, so that no trace has holes.
    return ParentBased(TraceIdRatioBased(ratio))


def _registry() -> CollectorRegistry:
    # When a series began nobody asks, and it doubles the counters'.
    disable_created_metrics()  # type: ignore[no-untyped-call]
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
