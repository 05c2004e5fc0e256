"""Checks what no schema knows of docker-compose.yml: that what it names exists, and that services take its settings.

`python -m deploy.checks.compose [FOLDER]` tells every fault, a line each, and ends with 1 where there is one.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from minion_activity.settings import ActivitySettings
from minion_cli.development.ports import DOCUMENTED
from minion_cli.secrets import made
from minion_gateway.settings import GatewaySettings
from minion_grpc import ServerSettings
from minion_memory.settings import MemorySettings
from minion_registry.settings import RegistrySettings
from minion_session.settings import SessionSettings
from minion_settings import SettingsError, unknown
from minion_settings.variables import variables

from deploy.checks import collector, containers, doors
from deploy.checks.commands import argument_faults
from deploy.checks.image import Dockerfile
from deploy.checks.places import Source

FILE = "docker-compose.yml"
# Where people put settings of the services; it may be missing.
SETTINGS_FILE = "minion.env"
SETTINGS: Mapping[str, type[ServerSettings]] = {
    kind.service: kind
    for kind in (RegistrySettings, SessionSettings, ActivitySettings, MemorySettings, GatewaySettings)
}
# Their images hold nothing that could ask; Prometheus tells whether they are up.
_WITHOUT_HEALTH_CHECK = {"otel-collector"}
# What their images write outside of volumes and /tmp can't be moved.
_WRITABLE = {"pgadmin"}
# A fault that begins with its file.
_PLACED = re.compile(r"[\w./-]+\.(yml|json):")
_REFERENCE = re.compile(r"\$\{(?P<name>\w+)(?:(?P<how>:-|:\?)(?P<rest>[^}]*))?\}")
_SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|_KEY$|_PASS$|AUTH$")
# Our image has its own health check.
_OURS = "minion-agents:"


def fresh_environment() -> dict[str, str]:
    """Gives what `minion secrets` writes, as variables."""
    return {variable: secret for group in made().values() for variable, secret in group.items()}


def load(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """Reads the file as compose does with this environment.

    Raises KeyError for a variable that is needed and not set.
    """
    loaded: dict[str, Any] = _interpolated(yaml.safe_load(path.read_text()), environ)
    return loaded


def _interpolated(value: Any, environ: Mapping[str, str]) -> Any:
    def given(found: re.Match[str]) -> str:
        text = environ.get(found["name"], "")
        if text or found["how"] == ":-":
            return text or found["rest"]
        raise KeyError(f"{found['name']} is not set")

    match value:
        case str():
            return _REFERENCE.sub(given, value)
        case list():
            return [_interpolated(part, environ) for part in value]
        case dict():
            return {name: _interpolated(part, environ) for name, part in value.items()}
        case _:
            return value


def faults(folder: Path) -> Iterator[str]:
    """Yields what is wrong with the file of a folder, in words."""
    source = Source.read(folder, Path(FILE))
    try:
        composed = _interpolated(source.content, fresh_environment())
    except KeyError as missing:
        yield f"{missing.args[0]} by `minion secrets`, and has no default"
        return
    for name, service in composed["services"].items():
        yield from (f"{name}: {fault}" for fault in _reference_faults(composed, service, folder))
        yield from (f"{name}: {fault}" for fault in _image_faults(name, service))
        yield from (f"{name}: {fault}" for fault in _confinement_faults(name, service))
        yield from (f"{name}: {fault}" for fault in _exposure_faults(name, source.content["services"][name]))
    built = [name for name, service in composed["services"].items() if "build" in service]
    if len(built) != 1:
        yield f"{', '.join(built) or 'nobody'} builds {_OURS.rstrip(':')}: one must, and no other"
    used = {part.partition(":")[0] for service in composed["services"].values() for part in service.get("volumes", [])}
    yield from (f"volume {name} is nobody's" for name in composed["volumes"] if name not in used)
    for check in (containers.faults, doors.faults):
        yield from check(folder, source)
    yield from collector.faults(folder)
    for name, service in composed["services"].items():
        if service["image"].startswith(_OURS):
            for fault in argument_faults(service["command"]) if service.get("command") else ():
                yield f"{source.of(name, 'command')}: {name}: {fault}"
    image = Dockerfile.read(folder)
    for name, kind in SETTINGS.items():
        yield from (f"{name}: {fault}" for fault in _settings_faults(kind, composed["services"], image))


def _reference_faults(composed: Mapping[str, Any], service: Mapping[str, Any], folder: Path) -> Iterator[str]:
    for other, how in service.get("depends_on", {}).items():
        if other not in composed["services"]:
            yield f"depends on {other}, which there is not"
            continue
        depended = composed["services"][other]
        if how["condition"] == "service_healthy" and not _has_health_check(depended):
            yield f"waits for the health of {other}, which has no health check"
        if how["condition"] == "service_completed_successfully" and depended.get("restart") != "no":
            yield f"waits for the end of {other}, which is started again"
        if set(depended.get("profiles", [])) - set(service.get("profiles", [])):
            yield f"depends on {other}, which stands in a profile"
    yield from (f"network {name} is not declared" for name in service["networks"] if name not in composed["networks"])
    for mount in service.get("volumes", []):
        source, _, rest = mount.partition(":")
        if not source.startswith("."):
            if source not in composed["volumes"]:
                yield f"volume {source} is not declared"
        elif not (folder / source).exists():
            yield f"mounts {source}, which there is not"
        elif not rest.endswith(":ro"):
            yield f"mounts {source} and may change it"


def _has_health_check(service: Mapping[str, Any]) -> bool:
    if service["image"].startswith(_OURS):
        return "disable" not in service.get("healthcheck", {})
    return "test" in service.get("healthcheck", {})


def _image_faults(name: str, service: Mapping[str, Any]) -> Iterator[str]:
    repository, _, tag = service["image"].rpartition(":")
    if not repository or "/" in tag:
        yield f"image {service['image']} has no tag"
    elif tag == "latest" or not re.search(r"\d+\.\d+", tag):
        yield f"image {service['image']} is pinned by no version"
    if service["image"].startswith(_OURS) and "build" not in service and service.get("pull_policy") != "never":
        yield "asks a registry for our image"
    if not _has_health_check(service) and service.get("restart") != "no" and name not in _WITHOUT_HEALTH_CHECK:
        yield "has no health check"


def _confinement_faults(name: str, service: Mapping[str, Any]) -> Iterator[str]:
    if service.get("cap_drop") != ["ALL"]:
        yield "keeps capabilities that it doesn't ask for"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield "may take new privileges"
    if not service.get("read_only") and name not in _WRITABLE:
        yield "may write to its root file system"
    if service.get("privileged") or service.get("network_mode") or service.get("pid"):
        yield "shares what is the machine's"
    if "max-size" not in service.get("logging", {}).get("options", {}):
        yield "writes logs without end"
    if "restart" not in service:
        yield "says nothing of what follows a fault"


def _exposure_faults(name: str, raw: Mapping[str, Any]) -> Iterator[str]:
    door = f"${{{'MINION_PUBLISH' if name in SETTINGS else 'MINION_PUBLISH_TOOLS'}:-127.0.0.1}}"
    for port in raw.get("ports", []):
        if not re.fullmatch(re.escape(door) + r":\d+:\d+", port):
            yield f"publishes {port} otherwise than {door} says"
    for variable, value in raw.get("environment", {}).items():
        if _SECRET.search(variable) and not re.fullmatch(r"\$\{\w+:[?-][^}]*\}", str(value)):
            yield f"{variable} stands in the file itself"
        elif _SECRET.search(variable) and re.fullmatch(r"\$\{\w+:-[^}]+\}", str(value)):
            yield f"{variable} has a default, which everybody knows"


def _settings_faults(kind: type[ServerSettings], services: Mapping[str, Any], image: Dockerfile) -> Iterator[str]:
    if kind.service not in services:
        yield "is missing"
        return
    service = services[kind.service]
    environ = container_environment(service, image)
    if environ.get("MINION_SERVICE") != kind.service:
        yield f"runs as {environ.get('MINION_SERVICE')}"
    known = {variable for field in kind.model_fields for variable in variables(kind, field)}
    # Where the others answer: one block for all, of which each reads its part.
    known |= {f"MINION_{other.upper()}_ADDRESS" for other in SETTINGS}
    for variable in service["environment"]:
        if variable not in known and variable != "MINION_SERVICE":
            yield f"{variable} is no setting of it"
    yield from (f"{found.variable} is no setting" for found in unknown(kind, environ) if found.nearest)
    try:
        settings = kind.load(environ)
    except SettingsError as error:
        yield from (f"{fault.variable} {fault.description}" for fault in error.faults)
        return
    yield from _running_faults(settings, service)


def _running_faults(settings: ServerSettings, service: Mapping[str, Any]) -> Iterator[str]:
    documented = DOCUMENTED[settings.service]
    if (settings.port, settings.operations_port) != (documented.rpc, documented.operations):
        yield "listens on other ports than the documented ones"
    if f":{settings.port}:{settings.port}" not in "".join(service.get("ports", [])):
        yield f"does not publish its port {settings.port}"
    if _seconds(service.get("stop_grace_period", "10s")) <= settings.drain_notice_seconds + settings.drain_seconds:
        yield "is killed before it has drained"
    if service.get("env_file") != [{"path": SETTINGS_FILE, "required": False}]:
        yield f"takes no settings from {SETTINGS_FILE}"
    if service.get("command") or service.get("entrypoint"):
        yield "does not run what the image runs"
    for field in type(settings).model_fields:
        if field.endswith("_address"):
            host, _, port = getattr(settings, field).partition(":")
            if host not in DOCUMENTED or str(DOCUMENTED[host].rpc) != port:
                yield f"{field} is {getattr(settings, field)}, where nobody answers"


def container_environment(service: Mapping[str, Any], image: Dockerfile) -> dict[str, str]:
    """Gives the environment of a container of our image: the image's, and compose's over it."""
    composed = {variable: str(value) for variable, value in service.get("environment", {}).items()}
    return {**image.environment, **composed}


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)(s|m)", text)
    return 0.0 if found is None else float(found[1]) * (60 if found[2] == "m" else 1)


def main() -> int:
    """Checks the folder given, or this one; returns the exit code."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
    try:
        found = list(faults(folder))
    except (OSError, ValueError) as broken:
        found = [str(broken)]
    for fault in found:
        print(fault if _PLACED.match(fault) else f"{FILE}: {fault}", file=sys.stderr)
    if not found:
        print(f"{FILE}: every name in it is known, and every service takes its settings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
