"""What docker-compose.yml says, as far as it can be known with no engine."""

import pytest
from minion_cli.client_settings import ClientSettings
from minion_cli.development.ports import DOCUMENTED
from minion_postgres import roles
from minion_postgres.roles import MONITOR
from minion_settings import SettingsError

from deploy.checks.compose import FILE, SETTINGS, container_environment, faults, fresh_environment, load
from deploy.checks.image import Dockerfile
from tests.architecture.contract import ROOT
from tests.deploy.copies import Copy, copied

__all__ = ["copied"]


def test_everything_that_it_names_is_there() -> None:
    assert list(faults(ROOT)) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("pgvector/pgvector:0.8.6-pg18-trixie", "pgvector/pgvector", "has no tag"),
        ("grafana/grafana:13.1.0", "grafana/grafana:latest", "is pinned by no version"),
        ("registry: {condition", "registrar: {condition", "depends on registrar, which there is not"),
        ("jaeger: {condition", "otel-collector: {condition", "otel-collector, which has no health check"),
        ("postgres: {condition", "redis: {condition", "depends on redis, which stands in a profile"),
        ('    restart: "no"\n', "", "waits for the end of migrate, which is started again"),
        ("networks: [minion]", "networks: [minions]", "network minions is not declared"),
        ("- prometheus-data:", "- prometheus:", "volume prometheus is not declared"),
        ("  redis-data: {}", "  redis-data: {}\n  spare: {}", "volume spare is nobody's"),
        ("./deploy/pgadmin/servers.json:", "./deploy/pgadmin/server.json:", "mounts ./deploy/pgadmin/server.json"),
        ("config.yml:ro", "config.yml", "and may change it"),
        ("  cap_drop: [ALL]\n", "", "keeps capabilities"),
        ('["no-new-privileges:true"]', "[]", "may take new privileges"),
        ("  read_only: true\n", "", "may write to its root file system"),
        ("options: {max-size: 10m, ", "options: {", "writes logs without end"),
        ("  restart: unless-stopped\n", "", "says nothing of what follows a fault"),
        ("${MINION_PUBLISH:-127.0.0.1}:50051:50051", "50051:50051", "publishes 50051:50051"),
        ("${MINION_PUBLISH:-127.0.0.1}:50051:50051", "${MINION_PUBLISH:-127.0.0.1}:50061:50061", "does not publish"),
        ("${MINION_PUBLISH:-127.0.0.1}:50051", "${MINION_PUBLISH_TOOLS:-127.0.0.1}:50051", "otherwise than"),
        ("${MINION_PUBLISH_TOOLS:-127.0.0.1}:9090", "${MINION_PUBLISH:-127.0.0.1}:9090", "otherwise than"),
        ("    build: {context: ., dockerfile: deploy/Dockerfile}\n", "", "nobody builds minion-agents"),
        ("  pull_policy: never\n", "  build: .\n", "registry, session, activity, memory, gateway builds"),
        ("  pull_policy: never\n", "", "asks a registry for our image"),
        ("{path: minion.env,", "{path: minions.env,", "takes no settings from minion.env"),
        ("${GRAFANA_PASSWORD:?run make docker-env}", "hunter2", "GF_SECURITY_ADMIN_PASSWORD stands in the file"),
        ("${PGADMIN_PASSWORD:?run make docker-env}", "${PGADMIN_PASSWORD:-admin}", "which everybody knows"),
        ("${REDIS_PASSWORD:?", "${REDIS_SECRET:?", "REDIS_SECRET is not set by `minion secrets`"),
        ("MINION_NAME:", "MINION_NAMES:", "MINION_NAMES is no setting"),
        ("MINION_SERVICE: memory", "MINION_SERVICE: session", "runs as session"),
        ("MINION_AUTH_MODE: required", "MINION_AUTH_MODE: disabled", "MINION_AUTH_MODE may be disabled on a loopback"),
        ("MINION_DATABASE_URL: postgresql://postgres", "MINION_DATABASE_URL: mysql://postgres", "must look like"),
        ("MINION_SESSION_ADDRESS: session:50052", "MINION_SESSION_ADDRESS: session:50053", "where nobody answers"),
        ("stop_grace_period: 40s", "stop_grace_period: 10s", "is killed before it has drained"),
        (
            "      MINION_SERVICE: memory\n",
            "      MINION_SERVICE: memory\n      MINION_MEMORY_PORT: 1\n",
            "other ports",
        ),
    ],
)
def test_each_fault_is_told(copied: Copy, old: str, new: str, fault: str) -> None:
    copied.replace(FILE, old, new)
    assert any(fault in found for found in faults(copied.folder)), list(faults(copied.folder))


def test_secrets_come_from_the_environment_alone() -> None:
    text = (ROOT / FILE).read_text()
    for variable in fresh_environment():
        assert f"${{{variable}:?run make docker-env}}" in text, f"{variable} is made and used nowhere"
    with pytest.raises(KeyError, match="is not set"):
        load(ROOT / FILE, {})


def test_each_service_holds_its_own_passwords_alone() -> None:
    composed = load(ROOT / FILE, fresh_environment())
    owners = {"activity", "memory"}
    for name in SETTINGS:
        held = {variable for variable in composed["services"][name]["environment"] if variable.endswith("_PASSWORD")}
        expected = {f"MINION_{name.upper()}_DATABASE_PASSWORD"}
        if name in owners:
            expected.add(f"MINION_{name.upper()}_OWNER_DATABASE_PASSWORD")
        assert held == expected
    migrating = composed["services"]["migrate"]["environment"]
    assert not {"MINION_SERVICE_KEY", "MINION_OPERATOR_KEY"} & set(migrating)


def test_services_log_in_as_roles_that_the_migrating_job_makes() -> None:
    composed = load(ROOT / FILE, fresh_environment())
    image = Dockerfile.read(ROOT)
    migrating = composed["services"]["migrate"]["environment"]
    for name, kind in SETTINGS.items():
        settings = kind.load(container_environment(composed["services"][name], image))
        app = getattr(settings, "app_dsn")  # noqa: B009 - every service's settings have it, no common class says so
        password = migrating[f"MINION_{name.upper()}_DATABASE_PASSWORD"]
        assert app == f"postgresql://{roles(name).app}:{password}@postgres:5432/minion"
    exporter = composed["services"]["postgres-exporter"]["environment"]
    assert exporter["DATA_SOURCE_USER"] == MONITOR
    assert exporter["DATA_SOURCE_PASS"] == migrating["MINION_MONITOR_DATABASE_PASSWORD"]


def test_all_start_once_those_that_they_call_are_well() -> None:
    services = load(ROOT / FILE, fresh_environment())["services"]
    order: list[str] = []
    waiting = {name: set(service.get("depends_on", {})) for name, service in services.items()}
    while waiting:
        ready = sorted(name for name, needs in waiting.items() if needs <= set(order))
        assert ready, f"these wait for each other: {sorted(waiting)}"
        order += ready
        for name in ready:
            del waiting[name]
    for name in DOCUMENTED:
        assert order.index("postgres") < order.index("migrate") < order.index(name)
    assert all(services[name]["depends_on"]["migrate"]["condition"] for name in DOCUMENTED)
    assert "otel-collector" not in {other for each in services.values() for other in each.get("depends_on", {})}


def test_the_doors_are_the_promised_ones() -> None:
    published = {"MINION_PUBLISH": "10.0.0.1", "MINION_PUBLISH_TOOLS": "10.0.0.2"}
    services = load(ROOT / FILE, {**fresh_environment(), **published})["services"]
    doors = {port: name for name, service in services.items() for port in service.get("ports", ())}
    tools = {"jaeger": 16686, "prometheus": 9090, "grafana": 3000, "pgadmin": 5050, "redis": 6379, "postgres": 5432}
    assert doors == {
        **{f"10.0.0.1:{ports.rpc}:{ports.rpc}": name for name, ports in DOCUMENTED.items()},
        **{f"10.0.0.2:{port}:{port}": name for name, port in tools.items()},
    }
    assert services["pgadmin"]["profiles"] == ["tools"]
    assert services["redis"]["profiles"] == ["full"]
    assert [name for name, service in services.items() if service.get("profiles")] == ["pgadmin", "redis"]


def test_tls_is_laid_over_the_five_services() -> None:
    composed = load(ROOT / FILE, fresh_environment())
    laid_over = load(ROOT / "docker-compose.tls.yml", {"MINION_CERTIFICATES": "/etc/minion"})["services"]
    assert set(laid_over) == set(SETTINGS)
    for name, kind in SETTINGS.items():
        assert laid_over[name]["volumes"] == ["/etc/minion:/run/minion/tls:ro"]
        both = {"environment": composed["services"][name]["environment"] | laid_over[name]["environment"]}
        with pytest.raises(SettingsError) as told:
            kind.load(container_environment(both, Dockerfile.read(ROOT)))
        # They are settings, taken together: what is missing here are the files alone.
        assert {fault.description.partition(":")[0] for fault in told.value.faults} == {"can't be read"}
        missing = {"MINION_TLS_CERTIFICATE", "MINION_TLS_KEY", "MINION_PEER_CA"}
        assert {fault.variable for fault in told.value.faults} == missing
        clients = {ClientSettings.variable("client_tls"), ClientSettings.variable("client_ca")}
        assert set(laid_over[name]["environment"]) == missing | clients | {"MINION_PEER_TLS"}
