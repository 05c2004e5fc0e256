"""The variables of OpenTelemetry's exporter: checked with the other settings, and what they say reaches collectors."""

import asyncio
import io
import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from minion_settings import SettingsError
from minion_telemetry import Telemetry, TelemetrySettings
from minion_telemetry.otlp import CollectorExporter
from minion_telemetry.otlp_settings import Destination
from opentelemetry.util.re import parse_env_headers

from tests.minion_grpc.authority import Authority, Folder
from tests.minion_telemetry.collector import collecting, until

SECRET = "Zq81hunter2"
HTTPS = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://localhost:4317"}
# Ours alone are read; all of these are wrong, and the first ones end an import of the SDK.
UNREAD = {
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "-3",
    "OTEL_SPAN_EVENT_COUNT_LIMIT": "many",
    "OTEL_SPAN_LINK_COUNT_LIMIT": "-1",
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "x",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "x",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "x",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "x",
    "OTEL_PROPAGATORS": "pigeon",
    "OTEL_PYTHON_CONTEXT": "none-such",
    "OTEL_PYTHON_METER_PROVIDER": "none-such",
    "OTEL_PYTHON_TRACER_PROVIDER": "none-such",
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "none-such",
    "OTEL_TRACES_SAMPLER": "none-such",
    "OTEL_TRACES_SAMPLER_ARG": "x",
    "OTEL_BSP_MAX_QUEUE_SIZE": "x",
    "OTEL_SERVICE_NAME": "other",
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER": "none-such",
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_TRACES_CREDENTIAL_PROVIDER": "none-such",
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES": "none-such",
    "OTEL_EXPORTER_OTLP_INSECURE": "x",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """The current directory, with a certificate, its key, and the CA."""
    monkeypatch.chdir(tmp_path)
    authority = Authority()
    return Folder(tmp_path, authority.issue(), authority)


def refused(environ: dict[str, str]) -> dict[str, str]:
    """Gives the faults by variable."""
    with pytest.raises(SettingsError) as refusal:
        TelemetrySettings.load(environ)
    assert SECRET not in str(refusal.value)
    return {fault.variable: fault.description for fault in refusal.value.faults}


@pytest.mark.parametrize("traces", ["", "TRACES_"])
@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("TIMEOUT", "abc", "valid number"),
        ("TIMEOUT", "0", "greater than 0"),
        ("TIMEOUT", "inf", "finite"),
        ("TIMEOUT", "10000", "less than or equal to 300"),
        ("COMPRESSION", "zip", "'none' or 'gzip'"),
        ("HEADERS", f"x-honeycomb-team: {SECRET}", "must be name=value,name=value; what stands at place 1 isn't"),
        ("HEADERS", f"a=b,x-team: {SECRET}==", "the name at place 2 is no header's"),
        ("HEADERS", f"={SECRET}", "what stands at place 1 isn't"),
        ("HEADERS", f"x-team={SECRET}ü", "the value at place 1 doesn't"),
        ("HEADERS", f"x-team={SECRET}%0d%0ax: y", "the value at place 1 doesn't"),
        ("HEADERS", f"x-team-bin={SECRET}", "the name at place 1 is no header's"),
        ("HEADERS", f"grpc-timeout={SECRET}", "the name at place 1 is no header's"),
    ],
)
def test_a_wrong_variable_is_a_fault_that_shows_no_secret(traces: str, name: str, value: str, fault: str) -> None:
    variable = f"OTEL_EXPORTER_OTLP_{traces}{name}"
    faults = refused({variable: value})
    assert list(faults) == [variable]
    assert fault in faults[variable]


@pytest.mark.parametrize("traces", ["", "TRACES_"])
@pytest.mark.parametrize(
    ("files", "named", "fault"),
    [
        ({"CERTIFICATE": "nope.pem"}, "CERTIFICATE", "can't be read: nope.pem (No such file"),
        ({"CERTIFICATE": "tls.key"}, "CERTIFICATE", "no certificate in PEM: tls.key"),
        ({"CLIENT_CERTIFICATE": "tls.crt"}, "CLIENT_KEY", "is required beside"),
        ({"CLIENT_KEY": "tls.key"}, "CLIENT_CERTIFICATE", "is required beside"),
        ({"CLIENT_CERTIFICATE": "tls.crt", "CLIENT_KEY": "gone"}, "CLIENT_KEY", "can't be read: gone"),
        ({"CLIENT_CERTIFICATE": "ca.crt", "CLIENT_KEY": "tls.key"}, "CLIENT_CERTIFICATE", "goes with the key in"),
    ],
)
def test_files_of_tls_are_looked_at(traces: str, files: dict[str, str], named: str, fault: str, folder: Folder) -> None:
    given = {f"OTEL_EXPORTER_OTLP_{traces}{name}": path for name, path in files.items()}
    [(variable, said)] = refused({**HTTPS, **given}).items()
    if fault != "is required beside":
        assert variable == f"OTEL_EXPORTER_OTLP_{traces}{named}"
    else:
        assert variable == f"OTEL_EXPORTER_OTLP_{named}"
        assert next(iter(given)) in said
    assert fault in said
    # A collector in plain text has no use for them.
    TelemetrySettings.load({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317", **given})


def test_all_is_told_at_once() -> None:
    faults = refused(
        {
            **HTTPS,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "abc",
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "zip",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nope.pem",
            "OTEL_RESOURCE_ATTRIBUTES": "pod",
        }
    )
    assert len(faults) == 4


def test_an_endpoint_that_is_none_hides_no_other_fault() -> None:
    faults = refused(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nope.pem",
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/nope.pem",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "abc",
        }
    )
    assert list(faults) == ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TIMEOUT"]


def test_those_for_traces_win(folder: Folder) -> None:
    loaded = TelemetrySettings.load(
        {
            **HTTPS,
            "OTEL_EXPORTER_OTLP_HEADERS": f"X-Team=a%20b, y={SECRET}==,",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "7",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "GZIP",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "ca.crt",
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "tls.crt",
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": "tls.key",
        }
    )
    ca, certificate, key = (Path(name).read_bytes() for name in ("ca.crt", "tls.crt", "tls.key"))
    headers = {"x-team": "a b", "y": f"{SECRET}=="}
    endpoint = HTTPS["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert loaded.otlp_destination == Destination(endpoint, headers, 7, True, ca, certificate, key)
    assert SECRET not in repr(loaded)
    assert SECRET not in repr(loaded.otlp_destination)
    own = {"otlp_traces_headers": "z=1", "otlp_traces_timeout": 3, "otlp_traces_compression": "none"}
    found = TelemetrySettings(**{**loaded.model_dump(), **own}).otlp_destination
    assert found == Destination(endpoint, {"z": "1"}, 3, False, ca, certificate, key)


async def send(environ: dict[str, str]) -> float:
    """Sends a span; gives how many the collector took."""
    telemetry = Telemetry.start("session", TelemetrySettings.load(environ))

    def counted(*outcomes: str) -> float:
        found = (telemetry.registry.get_sample_value("trace_spans_total", {"outcome": each}) for each in outcomes)
        return sum(value or 0 for value in found)

    telemetry.tracer.start_span("work").end()
    await asyncio.to_thread(telemetry.flush)
    # One attempt is not always enough on a machine that stands still for a while, and the end waits for seconds alone.
    await until(lambda: counted("exported", "failed"))
    await asyncio.to_thread(telemetry.shutdown)
    return counted("exported")


async def test_headers_reach_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the settings were not loaded from is not read.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-other=1")
    async with collecting() as collector:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        assert await send({**environ, "OTEL_EXPORTER_OTLP_HEADERS": "x-team=blue"}) == 1
        assert collector.metadata["x-team"] == "blue"
        assert await send(environ) == 1
        assert not {"x-team", "x-other"} & collector.metadata.keys()


async def test_batches_are_compressed_where_that_is_set() -> None:
    gzip = {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}
    async with collecting() as collector:
        assert await send({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, **gzip}) == 1
    async with collecting(compressed=False) as collector:
        assert await send({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}) == 1
        assert await send({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, **gzip}) == 0
        assert len(collector.spans) == 1


async def test_attributes_of_the_resource_reach_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "pod=other")
    async with collecting() as collector:
        given = {"OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=p%201,service.name=theirs"}
        assert await send({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, **given}) == 1
        [resource] = collector.requests[0].resource_spans
        told = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        assert told["k8s.pod.name"] == "p 1"
        assert told["service.name"] == "minion-session"
        assert told["telemetry.sdk.name"] == "opentelemetry"
        assert told["service.instance.id"]
        assert "pod" not in told


async def test_a_collector_is_reached_over_tls(folder: Folder) -> None:
    files = {"CERTIFICATE": "ca.crt", "CLIENT_CERTIFICATE": "tls.crt", "CLIENT_KEY": "tls.key"}
    ca, certificate, key = (path.read_bytes() for path in (folder.ca, folder.certificate, folder.key))
    credentials = grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)
    async with collecting(credentials=credentials) as collector:
        environ = {f"OTEL_EXPORTER_OTLP_{name}": path for name, path in files.items()}
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.endpoint
        assert await send(environ) == 1
        assert [span.name for span in collector.spans] == ["work"]


def test_what_is_given_is_all_that_the_exporter_reads(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in UNREAD.items():
        monkeypatch.setenv(name, value)
    for name in ("HEADERS", "TRACES_HEADERS", "COMPRESSION", "TRACES_COMPRESSION", "CERTIFICATE", "TIMEOUT"):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", "x-other=1")
    for endpoint in ("http://localhost:1", "https://localhost:1"):
        exporter = CollectorExporter(Destination(endpoint))
        assert exporter._headers == ()
        exporter.shutdown()
    assert not caplog.records


def test_wrong_variables_of_the_sdk_say_nothing() -> None:
    script = (
        "import os, minion_telemetry as t; t.configure_logging();"
        "telemetry = t.Telemetry.start('session', t.TelemetrySettings.load());"
        "from opentelemetry.instrumentation.grpc import aio_client_interceptors as made;"
        "made(tracer_provider=telemetry.tracer_provider);"
        "telemetry.shutdown();"
        "print(os.environ['OTEL_PROPAGATORS'])"
    )
    environ = {**os.environ, **UNREAD, **HTTPS, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "pigeon\n", "")


def test_opentelemetry_quotes_no_header_in_the_log(log: io.BytesIO) -> None:
    parse_env_headers(f"x-honeycomb-team: {SECRET}")
    assert log.getvalue() == b""
