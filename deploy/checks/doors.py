"""Checks that whoever is called by a host and a port, in any file that deploys, is there and listens on it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minion_cli.development.ports import DOCUMENTED

from deploy.checks.foreign_images import foreign
from deploy.checks.places import Source, strings

COLLECTOR = Path("deploy/otel-collector/config.yml")
PROMETHEUS = Path("deploy/prometheus/prometheus.yml")
SERVERS = Path("deploy/pgadmin/servers.json")
DATASOURCES = Path("deploy/grafana/provisioning/datasources")
_OWN = {"localhost", "127.0.0.1", "0.0.0.0"}  # noqa: S104 - read, not listened on
_DOOR = re.compile(r"(?<![\w.-])(?P<host>[a-zA-Z][\w-]*|\d+\.\d+\.\d+\.\d+):(?P<port>\d{2,})(?![\w.])")
_WITHOUT_PORT = re.compile(r"https?://[\w.-]+(?=/|$)")
# Documents that name host and port apart.
_PAIRS = (("host", "port"), ("Host", "Port"))


def faults(root: Path, compose: Source) -> Iterator[str]:
    """Yields each call that nobody would answer, with file and line."""
    services: Mapping[str, Any] = compose.content["services"]
    doors = {name: _ports(name, service) for name, service in services.items()}
    for name, service in services.items():
        said = [service.get(part) for part in ("environment", "command", "healthcheck")]
        for text, fault in _called(said, name, doors):
            yield f"{compose.of(name, text)}: {name}: {fault}"
    files = [(COLLECTOR, "otel-collector"), (PROMETHEUS, "prometheus"), (SERVERS, "pgadmin")]
    files += [(path.relative_to(root), "grafana") for path in sorted((root / DATASOURCES).glob("*.yml"))]
    for file, own in files:
        source = Source.read(root, file)
        for text, fault in _called(source.content, own, doors):
            yield f"{source.at(text)}: {fault}"


def _ports(name: str, service: Mapping[str, Any]) -> frozenset[int]:
    if name in DOCUMENTED:
        return frozenset({DOCUMENTED[name].rpc, DOCUMENTED[name].operations})
    image = foreign(service["image"])
    return image.ports if image else frozenset()


def _called(value: Any, own: str, doors: Mapping[str, frozenset[int]]) -> Iterator[tuple[str, str]]:
    """Yields the calls that go nowhere, each with the text that it stands at."""
    for text in strings(value):
        for found in _DOOR.finditer(text):
            yield from _door(found[0], found["host"], int(found["port"]), own, doors)
        for found in _WITHOUT_PORT.finditer(text):
            yield text, f"{found[0]} names no port"
    for host, port in _pairs(value):
        known = host in _OWN or host in doors
        yield from _door(str(port) if known else host, host, port, own, doors)


def _door(text: str, host: str, port: int, own: str, doors: Mapping[str, frozenset[int]]) -> Iterator[tuple[str, str]]:
    called = own if host in _OWN else host
    if called not in doors:
        yield text, f"there is no {called} to call at {host}:{port}"
    elif port not in doors[called]:
        known = ", ".join(map(str, sorted(doors[called]))) or "no port"
        yield text, f"{called} does not listen on {port}, but on {known}"


def _pairs(value: Any) -> Iterator[tuple[str, int]]:
    if isinstance(value, dict):
        for host, port in _PAIRS:
            if host in value and port in value:
                yield str(value[host]), int(value[port])
        value = list(value.values())
    for inner in value if isinstance(value, list) else ():
        yield from _pairs(inner)
