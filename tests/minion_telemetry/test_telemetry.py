from importlib import metadata

from minion_telemetry import Telemetry, TelemetrySettings
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import Counter, generate_latest


def test_two_services_of_one_process_share_nothing() -> None:
    spans = InMemorySpanExporter(), InMemorySpanExporter()
    first = Telemetry.start("session", TelemetrySettings(), span_exporters=[spans[0]])
    second = Telemetry.start("memory", TelemetrySettings(), span_exporters=[spans[1]])
    Counter("things", "Things.", registry=first.registry).inc()
    Counter("things", "Things.", registry=second.registry)
    with first.tracer.start_as_current_span("work"):
        pass
    first.flush()
    second.flush()
    assert [span.resource.attributes["service.name"] for span in spans[0].get_finished_spans()] == ["minion-session"]
    assert spans[1].get_finished_spans() == ()
    assert b"things_total 1.0" in generate_latest(first.registry)
    assert b"things_total 0.0" in generate_latest(second.registry)
    first.shutdown()
    second.shutdown()


def test_with_nowhere_to_send_them_spans_are_not_recorded_yet_have_ids() -> None:
    telemetry = Telemetry.start("session", TelemetrySettings())
    with telemetry.tracer.start_as_current_span("work") as span:
        assert not span.is_recording()
        assert span.get_span_context().is_valid
    telemetry.shutdown()


def test_tracing_that_is_off_records_nothing() -> None:
    spans = InMemorySpanExporter()
    telemetry = Telemetry.start("session", TelemetrySettings(tracing_enabled=False), span_exporters=[spans])
    with telemetry.tracer.start_as_current_span("work"):
        pass
    telemetry.shutdown()
    assert spans.get_finished_spans() == ()


def test_the_process_is_measured() -> None:
    telemetry = Telemetry.start("session", TelemetrySettings())
    assert b"process_resident_memory_bytes" in generate_latest(telemetry.registry)
    telemetry.shutdown()


def test_what_runs_is_told_and_nothing_of_when_series_began() -> None:
    telemetry = Telemetry.start("session", TelemetrySettings())
    Counter("things", "Things.", registry=telemetry.registry).inc()
    told = generate_latest(telemetry.registry).decode()
    assert f'minion_build_info{{version="{metadata.version("minion-agents")}"}} 1.0' in told
    assert "_created" not in told
    telemetry.shutdown()


def test_a_level_is_read_in_any_case() -> None:
    assert TelemetrySettings.load({"MINION_LOG_LEVEL": "WARNING"}).log_level == "warning"
