"""Logs, traces and metrics of a service: what happened, in which call, with nothing personal in it."""

# First of all: see there.
import minion_telemetry.importing  # noqa: F401
from minion_telemetry.logging import PlainLog, bind_fields, bound_fields, configure_logging
from minion_telemetry.masking import mask, mask_principal
from minion_telemetry.operations import OperationsServer
from minion_telemetry.settings import TelemetrySettings
from minion_telemetry.telemetry import Telemetry, fail

__all__ = [
    "OperationsServer",
    "PlainLog",
    "Telemetry",
    "TelemetrySettings",
    "bind_fields",
    "bound_fields",
    "configure_logging",
    "fail",
    "mask",
    "mask_principal",
]
