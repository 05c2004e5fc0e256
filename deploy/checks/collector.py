"""Checks the collector's configuration: options that its components know, pipelines of components that are there."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deploy.checks.doors import COLLECTOR
from deploy.checks.foreign_images import IMAGES
from deploy.checks.places import Source, hint

_Shape = Mapping[str, Any]
_TLS: _Shape = dict.fromkeys(("insecure", "insecure_skip_verify", "ca_file", "cert_file", "key_file"))
_SERVER: _Shape = {"endpoint": None, "tls": _TLS}
# Options by component; None where a value stands. Only the components that are used, and of them what is likely
# wanted: add what is missing from the collector's documentation.
_SHAPE: _Shape = {
    "receivers": {"otlp": {"protocols": {"grpc": _SERVER, "http": _SERVER}}},
    "processors": {
        "memory_limiter": dict.fromkeys(
            ("check_interval", "limit_mib", "spike_limit_mib", "limit_percentage", "spike_limit_percentage")
        ),
        "batch": dict.fromkeys(("timeout", "send_batch_size", "send_batch_max_size")),
    },
    "exporters": {
        "otlp": {
            **dict.fromkeys(("endpoint", "compression", "headers", "timeout")),
            "tls": _TLS,
            "sending_queue": dict.fromkeys(("enabled", "num_consumers", "queue_size", "storage")),
            "retry_on_failure": dict.fromkeys(("enabled", "initial_interval", "max_interval", "max_elapsed_time")),
        }
    },
    "extensions": {"health_check": {"endpoint": None, "path": None}},
    "service": {
        "extensions": None,
        "pipelines": {"traces": dict.fromkeys(("receivers", "processors", "exporters"))},
        "telemetry": {
            "logs": dict.fromkeys(("level", "encoding")),
            "metrics": {
                "level": None,
                "readers": {"pull": {"exporter": {"prometheus": dict.fromkeys(("host", "port"))}}},
            },
        },
    },
}
_PARTS = ("receivers", "processors", "exporters")


def faults(root: Path) -> Iterator[str]:
    """Yields what the collector would refuse or not do, with file and line."""
    source = Source.read(root, COLLECTOR)
    for path, name, known in _unknown(source.content, _SHAPE, ()):
        yield f"{source.at(*path, name)}: {'.'.join(path) or 'the collector'} has no {name}{hint(name, known)}"
    content = source.content
    service = content.get("service", {})
    for kind, pipeline in service.get("pipelines", {}).items():
        for part in _PARTS:
            yield from _difference(source, part, pipeline.get(part, ()), content.get(part, {}), f"pipeline {kind}")
        if pipeline.get("processors", ())[:1] != ["memory_limiter"]:
            yield f"{source.at('pipelines:', 'processors:')}: memory_limiter is not the first processor of {kind}"
    yield from _difference(
        source, "extensions", service.get("extensions", ()), content.get("extensions", {}), "service"
    )
    if "check_interval" not in content.get("processors", {}).get("memory_limiter", {}):
        yield f"{source.at('memory_limiter')}: memory_limiter has no check_interval, without which it does nothing"
    yield from _listening_faults(source)


def _unknown(value: Any, shape: _Shape, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, list[str]]]:
    """Yields names that their component doesn't know: where, which, and what it knows."""
    for each in value if isinstance(value, list) else [value]:
        for name, inner in each.items() if isinstance(each, dict) else ():
            # A second component of a kind is called kind/name.
            kind = str(name).partition("/")[0]
            if kind not in shape:
                yield path, str(name), list(shape)
            elif shape[kind] is not None:
                yield from _unknown(inner, shape[kind], (*path, str(name)))


def _difference(source: Source, part: str, used: Any, defined: Any, where: str) -> Iterator[str]:
    for name in used:
        if name not in defined:
            place = source.at("service:", f"{part}:", name)
            yield f"{place}: {where} names {name} among its {part}, which there is not{hint(name, defined)}"
    for name in defined:
        if name not in used:
            yield f"{source.at('service:', f'{part}:')}: {name} of {part} is in no {where.partition(' ')[0]}"


def _listening_faults(source: Source) -> Iterator[str]:
    """What is asked of the collector must be open in it: its own file decides, unlike that of other images."""
    for port in sorted(IMAGES["otel/opentelemetry-collector"].ports):
        if str(port) not in source.text:
            yield f"{source.file}: nothing listens on {port}, where the collector is asked"
