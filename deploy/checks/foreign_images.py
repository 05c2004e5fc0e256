"""What is known of the images that are not ours: their ports, variables, flags and folders.

Only what docker-compose.yml uses, and what stands near to it, is listed: whoever wants more of an image adds it here,
from the image's documentation.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ForeignImage:
    """An image. `data` is the folder that a volume must keep, `reads` what may be mounted to be read."""

    ports: frozenset[int]
    environment: frozenset[str] = frozenset()
    flags: frozenset[str] = frozenset()
    data: str = ""
    reads: frozenset[str] = frozenset()


IMAGES: Mapping[str, ForeignImage] = {
    # From Postgres 18 on, the volume is the folder above the one of the data.
    "pgvector/pgvector": ForeignImage(
        ports=frozenset({5432}),
        environment=frozenset(
            {"POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_INITDB_ARGS", "POSTGRES_HOST_AUTH_METHOD"}
        ),
        data="/var/lib/postgresql",
        reads=frozenset({"/docker-entrypoint-initdb.d"}),
    ),
    # Its ports are those of deploy/otel-collector/config.yml: OTLP, its own metrics, its health.
    "otel/opentelemetry-collector": ForeignImage(
        ports=frozenset({4317, 8888, 13133}),
        flags=frozenset({"--config", "--feature-gates", "--set"}),
        reads=frozenset({"/etc/otelcol/config.yml"}),
    ),
    # OTLP by gRPC and HTTP, its pages, its own metrics, its health.
    "jaegertracing/jaeger": ForeignImage(
        ports=frozenset({4317, 4318, 16686, 8888, 13133}), flags=frozenset({"--config", "--set"})
    ),
    "prom/prometheus": ForeignImage(
        ports=frozenset({9090}),
        flags=frozenset(
            {
                "--config.file",
                "--storage.tsdb.path",
                "--storage.tsdb.retention.time",
                "--storage.tsdb.retention.size",
                "--web.enable-lifecycle",
                "--web.external-url",
                "--log.level",
            }
        ),
        data="/prometheus",
        reads=frozenset({"/etc/prometheus"}),
    ),
    "grafana/grafana": ForeignImage(
        ports=frozenset({3000}),
        environment=frozenset(
            {
                "GF_SECURITY_ADMIN_USER",
                "GF_SECURITY_ADMIN_PASSWORD",
                "GF_USERS_ALLOW_SIGN_UP",
                "GF_ANALYTICS_REPORTING_ENABLED",
                "GF_ANALYTICS_CHECK_FOR_UPDATES",
                "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
                "GF_PLUGINS_PREINSTALL_DISABLED",
                "GF_SERVER_ROOT_URL",
            }
        ),
        data="/var/lib/grafana",
        reads=frozenset({"/etc/grafana/provisioning", "/var/lib/grafana/dashboards"}),
    ),
    "prometheuscommunity/postgres-exporter": ForeignImage(
        ports=frozenset({9187}),
        environment=frozenset({"DATA_SOURCE_URI", "DATA_SOURCE_USER", "DATA_SOURCE_PASS"}),
    ),
    # Its port is the one that PGADMIN_LISTEN_PORT says.
    "dpage/pgadmin4": ForeignImage(
        ports=frozenset({5050}),
        environment=frozenset(
            {
                "PGADMIN_DEFAULT_EMAIL",
                "PGADMIN_DEFAULT_PASSWORD",
                "PGADMIN_LISTEN_PORT",
                "PGADMIN_LISTEN_ADDRESS",
                "PGADMIN_DISABLE_POSTFIX",
            }
        ),
        data="/var/lib/pgadmin",
        reads=frozenset({"/pgadmin4/servers.json"}),
    ),
    "redis": ForeignImage(
        ports=frozenset({6379}),
        environment=frozenset({"REDISCLI_AUTH"}),
        flags=frozenset({"--appendonly", "--requirepass", "--maxmemory", "--maxmemory-policy", "--save"}),
        data="/data",
    ),
}


def foreign(image: str) -> ForeignImage | None:
    """Looks an image up by its name with its tag; None for one that isn't listed."""
    return IMAGES.get(image.rpartition(":")[0])
