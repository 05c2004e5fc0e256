"""What a service, or the whole stack, says when it can't start, and how it ends."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from minion_postgres import SCHEMAS
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import SERVICE_KEY, free_ports

from tests.end_to_end.stacks import Done, environ, minion

# Processes are started and stopped here.
pytestmark = pytest.mark.slow

_BOUND_SECONDS = 120.0
# What gRPC's own code may say on a machine in distress is no line of ours.
_QUIET = {"GRPC_VERBOSITY": "NONE"}
SECRETS = ("hunter2", "too-short-to-be-one", "sk-secret")

# What OpenTelemetry's exporter would read by itself.
OTLP: Mapping[str, str] = {
    "OTEL_EXPORTER_OTLP_HEADERS": "x-honeycomb-team: hunter2",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "abc",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "zip",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "hunter2",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "x",
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "zip",
    "OTEL_RESOURCE_ATTRIBUTES": "pod",
}
# Faults of every kind, by the variable that a person is told of.
WRONG: Mapping[str, str] = {
    "MINION_ENVIRONMENT": "production",
    "MINION_AUTH_MODE": "disabled",  # in production, and off the loopback
    "MINION_HOST": "0.0.0.0",  # noqa: S104 - refused
    "MINION_DATABASE_URL": "mysql://minion:hunter2@db/minion",
    "MINION_SERVICE_KEY": "too-short-to-be-one",
    "MINION_LOG_LEVEL": "loud",
    "MINION_TRACE_RATIO": "1.5",
    "MINION_STATEMENT_SECONDS": "inf",
    "MINION_POOL_MIN_SIZE": "30",
    "MINION_POOL_MAX_SIZE": "20",
    "MINION_MTLS_CERTIFICATE": "/nowhere/tls.crt",
    "MINION_PEER_CA": "/nowhere/ca.crt",
    "MINION_JWT_ISSUER": "https://issuer.example/",
    "MINION_JWT_ALGORITHMS": '["RS256"',
    "MINION_REGISTRY_ADDRESS": "http://registry:50051",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "grpc://user:hunter2@collector:4317",
    **OTLP,
    # Not read; the SDK, while it is imported, would end in tracebacks or write them.
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "-3",
    "OTEL_PROPAGATORS": "pigeon",
    "OTEL_PYTHON_CONTEXT": "none-such",
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "none-such",
}
TOLD = {
    "MINION_AUTH_MODE": 2,
    "MINION_DATABASE_URL": 1,
    "MINION_SERVICE_KEY": 1,
    "MINION_LOG_LEVEL": 1,
    "MINION_TRACE_RATIO": 1,
    "MINION_STATEMENT_SECONDS": 1,
    "MINION_POOL_MIN_SIZE": 1,
    "MINION_MTLS_CERTIFICATE": 1,
    "MINION_MTLS_KEY": 1,
    "MINION_MTLS_CLIENT_CA": 1,
    "MINION_PEER_CA": 2,
    "MINION_JWT_AUDIENCE": 1,
    "MINION_JWT_JWKS": 1,
    "MINION_JWT_ALGORITHMS": 1,
    "MINION_REGISTRY_ADDRESS": 1,
    "OTEL_EXPORTER_OTLP_ENDPOINT": 1,
    **dict.fromkeys(OTLP, 1),
}
# What each service is told of its own beside that: variables with wrong values, and the variables that are named.
OWN: Mapping[str, tuple[Mapping[str, str], Mapping[str, int]]] = {
    "registry": (
        {"MINION_A2A_URL": "agents.example", "MINION_REGISTRY_PORT": "9051", "MINION_OUTBOX_CLAIM_SECONDS": "soon"},
        {"MINION_A2A_URL": 1, "MINION_OPERATIONS_PORT": 1, "MINION_OUTBOX_CLAIM_SECONDS": 1},
    ),
    "session": ({"MINION_EXPIRED_KEPT": "a month"}, {"MINION_EXPIRED_KEPT": 1}),
    "memory": (
        {
            "MINION_DEFAULT_EXTRACTOR": "facts-0",
            "MINION_GATEWAY_ADDRESS": "gateway",
            "MINION_MEMORY_DEFAULT_EMBEDDING_MODEL": "minilm",
            "MINION_FACT_KEPT": "1e300",
        },
        {
            "MINION_DEFAULT_EXTRACTOR": 1,
            "MINION_GATEWAY_ADDRESS": 1,
            "MINION_MEMORY_DEFAULT_EMBEDDING_MODEL": 1,
            "MINION_FACT_KEPT": 1,
        },
    ),
    "activity": ({"MINION_PARTITION_MONTHS_AHEAD": "0"}, {"MINION_PARTITION_MONTHS_AHEAD": 1}),
    "gateway": (
        {
            "MINION_DEFAULT_CHAT_MODEL": "openai/gpt-4o",
            "MINION_GATEWAY_DEFAULT_EMBEDDING_MODEL": "openai/ada",
            "MINION_PRICE_OVERRIDES": '{"openai/x": {"input": "sk-secret"}}',
            "MINION_LEASE_SECONDS": "0",
        },
        {
            "MINION_DEFAULT_CHAT_MODEL": 1,
            "MINION_DEFAULT_EMBEDDING_MODEL": 2,
            "MINION_PRICE_OVERRIDES[openai/x][input]": 1,
            "MINION_LEASE_SECONDS": 1,
        },
    ),
}


async def started(service: str, **variables: str) -> Done:
    """Starts a service as a process, and waits for its end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"minion_{service}"),
        env=environ(**_QUIET, **variables),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_BOUND_SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


def able(service: str, database: ClonedDatabase, **more: str) -> dict[str, str]:
    """The variables that a service runs with."""
    port, operations = free_ports(2)
    name = service.upper()
    return {
        "MINION_DATABASE_URL": database.dsn(service),
        "MINION_AUTH_MODE": "required",
        "MINION_SERVICE_KEY": SERVICE_KEY,
        f"MINION_{name}_PORT": str(port),
        f"MINION_{name}_OPERATIONS_PORT": str(operations),
        **more,
    }


def one_line(done: Done) -> dict[str, Any]:
    """The only line that a service wrote: why it can't run."""
    assert done.code == 1, done.err
    assert done.out == ""
    [line] = done.err.splitlines()
    told: dict[str, Any] = json.loads(line)
    assert told["event"] == "the service can't run"
    return told


def counted(lines: list[str]) -> dict[str, int]:
    variables = [line.strip().partition(": ")[0] for line in lines]
    return {variable: variables.count(variable) for variable in variables}


@pytest.mark.parametrize("service", SCHEMAS)
async def test_all_faults_of_a_services_settings_are_one_message(service: str) -> None:
    wrong, named = OWN[service]
    done = await started(service, **{**WRONG, **wrong})
    assert done.code == 2
    assert done.out == ""
    first, *lines = done.err.splitlines()
    assert counted(lines) == {**TOLD, **named}
    assert first == f"The settings have {sum({**TOLD, **named}.values())} faults:"
    assert "Traceback" not in done.err
    assert not any(secret in done.err for secret in SECRETS)


async def test_all_faults_of_a_stacks_settings_are_one_line(place: Path) -> None:
    wrong = {name: value for _, (values, _) in OWN.items() for name, value in values.items()}
    wrong |= {"MINION_SESSION_PORT": "many", "MINION_MEMORY_OPERATIONS_PORT": "50051", "MINION_REGISTRY_PORT": "50051"}
    done = await minion("dev", cwd=place, env=environ(**{**WRONG, **wrong}))
    assert done.code == 2
    assert done.out == ""
    [line] = done.err.splitlines()
    assert line.startswith("error: SETTINGS_INVALID: ")
    # A stack has authentication, keys and transport of its own.
    own = {"MINION_AUTH_MODE", "MINION_SERVICE_KEY", "MINION_REGISTRY_ADDRESS", "MINION_GATEWAY_ADDRESS"}
    expected = {name for named in (TOLD, *(named for _, named in OWN.values())) for name in named}
    expected -= own | {name for name in TOLD if "TLS" in name or "PEER" in name} | {"MINION_OPERATIONS_PORT"}
    for variable in (*expected, "MINION_SESSION_PORT", "MINION_MEMORY_OPERATIONS_PORT"):
        assert variable in line
    assert line.count("MINION_POOL_MIN_SIZE is 30") == 1
    assert not any(variable in line for variable in own)
    assert not any(secret in line for secret in SECRETS)
    assert "postgres" not in os.listdir(place / ".minion")


async def test_a_collectors_settings_are_those_of_a_command_that_calls_services(place: Path) -> None:
    wrong = {
        **OTLP,
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://localhost:4317",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nope.pem",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "-3",
        "MINION_OPERATOR_KEY": "an-operator's-key-of-some-length-0123",
    }
    done = await minion("tenants", "list", cwd=place, env=environ(**wrong))
    assert done.code == 2
    assert done.out == ""
    [line] = done.err.splitlines()
    assert line.startswith("error: SETTINGS_INVALID: ")
    for variable in (*OTLP, "OTEL_EXPORTER_OTLP_CERTIFICATE"):
        assert variable in line
    assert not any(secret in line for secret in SECRETS)


async def test_a_collectors_certificate_that_is_missing_stops_a_service(postgres: ClonedDatabase) -> None:
    collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://localhost:4317", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nope.pem"}
    done = await started("session", **able("session", postgres, **collector))
    assert done.code == 2
    assert done.err.splitlines() == [
        "The settings have 1 fault:",
        "  OTEL_EXPORTER_OTLP_CERTIFICATE: can't be read: /nope.pem (No such file or directory)",
    ]


async def test_a_schema_that_was_never_migrated_stops_a_service(
    database_factory: Callable[..., Awaitable[ClonedDatabase]],
) -> None:
    told = one_line(await started("activity", **able("activity", await database_factory(migrated=False))))
    assert (told["reason"], told["schema"]) == ("SCHEMA_NOT_MIGRATED", "activity")
    assert told["error"].endswith("was never migrated: run `minion migrate`.")


@pytest.mark.parametrize("service", SCHEMAS)
async def test_a_schema_of_an_earlier_release_stops_a_service(
    service: str, database_factory: Callable[..., Awaitable[ClonedDatabase]]
) -> None:
    database = await database_factory()
    last, older = await _set_back(database, service)
    told = one_line(await started(service, **able(service, database)))
    assert (told["reason"], told["schema"]) == ("SCHEMA_OUTDATED", service)
    assert told["migrations"] == f"{last},{older}"
    assert f"not applied: {last}; applied as an earlier release has it: {older}" in told["error"]
    assert told["error"].endswith("run `minion migrate`.")


async def _set_back(database: ClonedDatabase, service: str) -> tuple[str, str]:
    """Makes a schema look like an earlier release's; gives the migration and the functions that it lacks."""
    connection = await asyncpg.connect(database.admin_dsn)
    try:
        await connection.execute(f"SET search_path = {service}")
        names = [row[0] for row in await connection.fetch("SELECT name FROM schema_migrations ORDER BY name")]
        last, older = [name for name in names if name[0] == "0"][-1], "functions.sql"
        await connection.execute("DELETE FROM schema_migrations WHERE name = $1", last)
        await connection.execute("UPDATE schema_migrations SET checksum = 'old' WHERE name = $1", older)
        return last, older
    finally:
        await connection.close()


async def test_a_database_that_is_down_or_refuses_the_role_stops_a_service(postgres: ClonedDatabase) -> None:
    down = one_line(
        await started("session", **able("session", postgres, MINION_DATABASE_URL="postgresql://127.0.0.1:1/m"))
    )
    assert down["reason"] == "DATABASE_UNAVAILABLE"
    assert "127.0.0.1:1" in down["error"]
    wrong = postgres.dsn("session").replace("for%20tests%20alone", "hunter2")
    refused = await started("session", **able("session", postgres, MINION_DATABASE_URL=wrong))
    assert one_line(refused)["reason"] == "DATABASE_UNAVAILABLE"
    assert "hunter2" not in refused.err


@pytest.mark.parametrize("variable", ["MINION_GATEWAY_PORT", "MINION_GATEWAY_OPERATIONS_PORT"])
async def test_a_port_in_use_stops_a_service(variable: str, postgres: ClonedDatabase) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = str(held.getsockname()[1])
        told = one_line(await started("gateway", **able("gateway", postgres, **{variable: port})))
    assert told["reason"] == "PORT_UNAVAILABLE"
    assert port in told["error"]


async def test_without_a_collector_a_service_serves_and_stops(postgres: ClonedDatabase) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "minion_session"),
        env=environ(**_QUIET, **able("session", postgres, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(_BOUND_SECONDS):
            while json.loads(await process.stderr.readline())["event"] != "serving":
                continue
            process.send_signal(signal.SIGTERM)
            await process.stderr.read()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
