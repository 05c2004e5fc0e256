"""Slips of the pen that no schema and no program but these checks would tell, each with its file and place."""

import re
import shutil
import subprocess

import pytest

from deploy.checks import compose, image, label_values, monitoring, promtool
from deploy.checks.metric_tables import OURS
from tests.architecture.contract import ROOT
from tests.deploy import monitored
from tests.deploy.copies import Copy, copied

__all__ = ["copied"]

COMPOSE = "docker-compose.yml"
COLLECTOR = "deploy/otel-collector/config.yml"
PROMETHEUS = "deploy/prometheus/prometheus.yml"
RECORDING = "deploy/prometheus/rules/recording.yml"
SOURCES = "deploy/grafana/provisioning/datasources/minion.yml"


@pytest.mark.parametrize(
    ("path", "old", "new", "fault"),
    [
        # Where somebody is called.
        (SOURCES, "prometheus:9090", "prometheus:9009", "prometheus does not listen on 9009"),
        (SOURCES, "http://jaeger:16686", "http://jager:16686", "there is no jager to call at jager:16686"),
        (SOURCES, "http://jaeger:16686", "http://jaeger", "http://jaeger names no port"),
        (COLLECTOR, "jaeger:4317", "jaeger:4371", "jaeger does not listen on 4371"),
        (COLLECTOR, "endpoint: 0.0.0.0:4317", "endpoint: 0.0.0.0:4371", "otel-collector does not listen on 4371"),
        (COLLECTOR, "port: 8888", "port: 8889", "otel-collector does not listen on 8889"),
        (COMPOSE, "DATA_SOURCE_URI: postgres:5432", "DATA_SOURCE_URI: postgress:5432", "there is no postgress"),
        (COMPOSE, "127.0.0.1:9090/-/ready", "127.0.0.1:9009/-/ready", "prometheus does not listen on 9009"),
        (COMPOSE, "http://otel-collector:4317", "http://otel-collector:4371", "otel-collector does not listen on 4371"),
        (COMPOSE, "postgresql://postgres:5432", "postgresql://postgres:5423", "postgres does not listen on 5423"),
        (COMPOSE, "-127.0.0.1}:3000:3000", "-127.0.0.1}:3000:3300", "nobody listens on 3300"),
        (PROMETHEUS, "postgres-exporter:9187", "postgres-exportr:9187", "there is no postgres-exportr"),
        (PROMETHEUS, "otel-collector:8888", "otel-collector:8889", "otel-collector does not listen on 8889"),
        ("deploy/pgadmin/servers.json", '"postgres",\n      "Port"', '"postgre",\n      "Port"', "there is no postgre"),
        ("deploy/pgadmin/servers.json", "5432", "5433", "postgres does not listen on 5433"),
        # What images know.
        (
            COMPOSE,
            "DATA_SOURCE_USER: minion_monitor",
            "DATA_SOURCE_USER: minion_monitr",
            "minion_monitr is not the role",
        ),
        (COMPOSE, "PGADMIN_DEFAULT_EMAIL", "PGADMIN_DEFALT_EMAIL", "(meant PGADMIN_DEFAULT_EMAIL?)"),
        (COMPOSE, "GF_SECURITY_ADMIN", "GF_SECURTY_ADMIN", "(meant GF_SECURITY_ADMIN_PASSWORD?)"),
        (COMPOSE, "--storage.tsdb.path", "--storage.tsdb.pth", "(meant --storage.tsdb.path?)"),
        (COMPOSE, "/var/lib/postgresql", "/var/lib/postgresql/data", "but in /var/lib/postgresql"),
        (COMPOSE, ":/etc/grafana/provisioning", ":/etc/grafana/provisoning", "is nothing that its image reads"),
        (COMPOSE, "--config.file=/etc/prometheus/", "--config.file=/etc/prometeus/", "no file is mounted at /etc/prom"),
        (COMPOSE, "--config=/etc/otelcol/config.yml", "--config=/etc/otelcol/config.yaml", "no file is mounted at"),
        (COMPOSE, '"--bootstrap"', '"--bootstrp"', "is refused: No such option: --bootstrp"),
        ("deploy/grafana/provisioning/dashboards/minion.yml", "/dashboards", "/dashbords", "is not mounted at"),
        # The collector's own words.
        (
            COLLECTOR,
            "check_interval",
            "chek_interval",
            "processors.memory_limiter has no chek_interval (meant check_int",
        ),
        (COLLECTOR, "  batch:", "  bach:", "processors has no bach (meant batch?)"),
        (COLLECTOR, "memory_limiter, batch]", "memory_limiter, bach]", "names bach among its processors"),
        (COLLECTOR, "[memory_limiter, batch]", "[batch, memory_limiter]", "is not the first processor"),
        (COLLECTOR, "exporters: [otlp]", "exporters: [oltp]", "names oltp among its exporters"),
        (COLLECTOR, "  otlp:\n    protocols", "  otpl:\n    protocols", "receivers has no otpl (meant otlp?)"),
        (COLLECTOR, "  extensions: [health_check]", "  extensions: []", "health_check of extensions is in no service"),
    ],
)
def test_compose_and_the_collector(copied: Copy, path: str, old: str, new: str, fault: str) -> None:
    copied.replace(path, old, new)
    told = list(compose.faults(copied.folder))
    line = changed_line(copied, path)
    assert any(fault in each and each.startswith(f"{path}:{line}: ") for each in told), (line, told)


def changed_line(copied: Copy, path: str) -> int:
    """The first line in which the copy differs."""
    lines = zip((copied.folder / path).read_text().splitlines(), (ROOT / path).read_text().splitlines(), strict=False)
    return next(number for number, (one, other) in enumerate(lines, 1) if one != other)


@pytest.mark.parametrize(
    ("path", "old", "new", "fault"),
    [
        (RECORDING, "|Unavailable|", "|Unavailble|", "has no grpc_code Unavailble (meant Unavailable?)"),
        (RECORDING, 'outcome="error"', 'outcome=~"(eror|ok)"', "has no outcome eror (meant error?)"),
        (RECORDING, 'outcome="error"', 'outcome="eror"', "has no outcome eror (meant error?)"),
        (RECORDING, 'grpc_type="unary"', 'grpc_type="unry"', "has no grpc_type unry (meant unary?)"),
        (RECORDING, "CreateRun|", "CreatRun|", "has no grpc_method CreatRun (meant CreateRun?)"),
        (RECORDING, 'job="minion"', 'job="minon"', "has no job minon (meant minion?)"),
        (PROMETHEUS, "- rules/*.yml", "- rule/*.yml", "rule/*.yml fits no file"),
        (PROMETHEUS, "- rules/*.yml", "- rules/r*.yml", "services.yml is not loaded"),
        (PROMETHEUS, "job_name: minion", "job_name: minon", "no query asks for the job minon (meant minion?)"),
        (PROMETHEUS, "{service: memory}", "{service: memry}", "is labelled as the service memry (meant memory?)"),
        (PROMETHEUS, "registry:9051", "registry:9015", "shows its metrics at registry:9051, not at registry:9015"),
        (PROMETHEUS, "scrape_configs:", "scrape_config:", "there is no job minion, for which queries ask"),
        (PROMETHEUS, "job_name: minion", "jobname: minion", "there is no job minion, for which queries ask"),
        (PROMETHEUS, "memory:9053", "session:9052", "the service memory shows its metrics at memory:9053"),
    ],
)
def test_prometheus(copied: Copy, path: str, old: str, new: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # What promtool has to say takes seconds, and is tested beside this.
    monkeypatch.setattr(promtool, "faults", lambda *_: ())
    copied.replace(path, old, new)
    told = monitoring.faults(copied.folder)
    place = rf"{re.escape(path)}:({changed_line(copied, path)}: | record )" if path == RECORDING else re.escape(path)
    assert any(fault in each and re.match(place, each) for each in told), told


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("--from=dependencies /opt/minion", "--from=dependencies /opt/minoin", "takes /opt/minoin from dependencies"),
        ("from=wheel,source=/wheels", "from=wheel,source=/weels", "takes /weels from wheel, where nothing makes it"),
        (
            "requirement requirements-runtime",
            "requirement requirements-runtme",
            "takes requirements-runtme.lock, which",
        ),
        ("-P graph.py", "-P grph.py", "takes grph.py, which nothing above copies"),
        ('ENTRYPOINT ["minion"]', 'ENTRYPOINT ["minon"]', "the image has no program minon (meant minion?)"),
        ('CMD ["minion", "health"]', 'CMD ["minion", "helth"]', "`minion helth` is refused: No such command 'helth'"),
        ('CMD ["serve"]', 'CMD ["serv"]', "`minion serv` is refused: No such command 'serv'"),
    ],
)
def test_the_image(copied: Copy, old: str, new: str, fault: str) -> None:
    copied.replace("deploy/Dockerfile", old, new)
    line = changed_line(copied, "deploy/Dockerfile")
    told = list(image.faults(copied.folder))
    assert any(fault in each and each.startswith(f"line {line}: ") for each in told), (line, told)


def test_values_of_labels_are_those_that_are_told() -> None:
    rows = {row[1]: row[0] for row in re.finditer(r"^\| `(\w+)` \|.*$", (ROOT / OURS).read_text(), flags=re.MULTILINE)}
    for (metric, label), values in label_values.OF_METRICS.items():
        assert f"`{label}`" in rows[metric], metric
        for value in values:
            assert re.search(rf"\b{value}\b", rows[metric].rpartition("|")[0].rpartition("|")[2]), (metric, value)


def test_what_is_commented_out_is_right_when_it_is_not(copied: Copy) -> None:
    monitored.needed("promtool")
    path = copied.folder / PROMETHEUS
    before, _, rest = path.read_text().partition("# alerting:")
    commented, _, after = rest.partition("\n\n")
    path.write_text(before + "alerting:" + commented.replace("\n# ", "\n") + "\n\n" + after)
    assert "alertmanagers:\n    - static_configs" in path.read_text()
    done = subprocess.run(
        ["promtool", "check", "config", path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_tells_nothing_of_what_is_right(copied: Copy) -> None:
    monitored.needed("promtool")
    copied.replace("deploy/prometheus/rules/runs.yml", "expr:", "exrp:")
    shutil.rmtree(copied.folder / "deploy/prometheus/tests")
    (told,) = [fault for fault in promtool.faults(copied.folder, []) if "check config" in fault]
    assert "SUCCESS" not in told
    assert told.splitlines()[1].strip().startswith("FAILED")
    assert "field exrp not found" in told
