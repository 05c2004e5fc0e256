"""Checks what compose gives to images that are not ours: variables, flags and folders that they know."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minion_postgres.roles import MONITOR

from deploy.checks.foreign_images import ForeignImage, foreign
from deploy.checks.places import Source, hint

_PROVIDERS = Path("deploy/grafana/provisioning/dashboards")
_DASHBOARDS = "./deploy/grafana/dashboards"


def faults(root: Path, compose: Source) -> Iterator[str]:
    """Yields what an image would silently pass over, with file and line."""
    services: Mapping[str, Any] = compose.content["services"]
    for name, service in services.items():
        if service["image"].startswith("minion-agents:"):
            continue
        image = foreign(service["image"])
        if image is None:
            yield f"{compose.at(service['image'])}: {name}: nothing is known of {service['image']} (foreign_images.py)"
            continue
        for text, fault in _faults_of(image, service):
            yield f"{compose.of(name, text)}: {name}: {fault}"
        yield from _configuration_faults(root, compose, name, service)
    yield from _dashboard_faults(root, services.get("grafana", {}))


def _faults_of(image: ForeignImage, service: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields faults, each with the text that it stands at."""
    for variable in service.get("environment", {}):
        if variable not in image.environment:
            yield variable, f"{variable} is no variable of its image{hint(variable, image.environment)}"
    for part in service.get("command", []) if image.flags else []:
        flag = part.partition("=")[0]
        if flag.startswith("--") and flag not in image.flags:
            yield part, f"{flag} is no flag of its image{hint(flag, image.flags)}"
    kept = {target: mount for mount in service.get("volumes", []) if not (target := _target(mount)).startswith(".")}
    for target, mount in kept.items():
        if mount.startswith(".") and target not in image.reads:
            yield mount, f"{target} is nothing that its image reads{hint(target, image.reads)}"
        elif not mount.startswith(".") and target != image.data:
            yield mount, f"its image keeps nothing in {target}, but in {image.data or 'no folder'}"
    if image.data and image.data not in kept:
        yield "image:", f"no volume keeps {image.data}"
    for port in service.get("ports", []):
        inner = port.rpartition(":")[2]
        if int(inner) not in image.ports:
            yield port, f"nobody listens on {inner} in it"
    given = service.get("environment", {})
    if given.get("PGADMIN_LISTEN_PORT", "5050") != "5050":
        yield "PGADMIN_LISTEN_PORT", "listens on another port than 5050"
    if given.get("DATA_SOURCE_USER", MONITOR) != MONITOR:
        yield "DATA_SOURCE_USER", f"{given['DATA_SOURCE_USER']} is not the role that `migrate` makes, {MONITOR}"


def _target(mount: str) -> str:
    return mount.split(":")[1]


def _configuration_faults(root: Path, compose: Source, name: str, service: Mapping[str, Any]) -> Iterator[str]:
    mounted = {_target(mount): mount.partition(":")[0] for mount in service.get("volumes", [])}
    for part in service.get("command", []):
        flag, _, path = part.partition("=")
        if flag not in ("--config", "--config.file"):
            continue
        sources = [
            Path(source, Path(path).relative_to(target))
            for target, source in mounted.items()
            if path.startswith(target)
        ]
        if not any((root / source).is_file() for source in sources):
            yield f"{compose.at(part)}: {name}: no file is mounted at {path}"


def _dashboard_faults(root: Path, grafana: Mapping[str, Any]) -> Iterator[str]:
    mounted = {_target(mount): mount.partition(":")[0] for mount in grafana.get("volumes", [])}
    for path in sorted((root / _PROVIDERS).glob("*.yml")):
        source = Source.read(root, path.relative_to(root))
        for provider in source.content.get("providers", ()):
            place = provider.get("options", {}).get("path", "")
            if mounted.get(place) != _DASHBOARDS:
                yield f"{source.at(place)}: {_DASHBOARDS} is not mounted at {place}"
