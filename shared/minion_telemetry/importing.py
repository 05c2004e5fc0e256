"""OpenTelemetry's modules that read the environment while they are imported, imported with none of its variables.

One that is wrong (`OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=-3`) would end the process in a traceback before any setting is
looked at. None of them says anything about our spans, which are not the SDK's. The package imports this module before
all others.
"""

import os
from importlib import import_module
from typing import Final

_READERS: Final = (
    "opentelemetry.context",
    "opentelemetry.propagate",
    "opentelemetry.sdk.trace",
    # With the SDK's logs, which make a resource while they are imported.
    "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
)


def _import_readers() -> None:
    hidden = {name: os.environ.pop(name) for name in tuple(os.environ) if name.startswith("OTEL_")}
    try:
        for module in _READERS:
            import_module(module)
    finally:
        os.environ.update(hidden)


_import_readers()
