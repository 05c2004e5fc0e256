"""What a deployment decides about logs, traces and metrics."""

from typing import Annotated, Literal

from minion_settings import HttpAddress, Settings
from pydantic import BeforeValidator, Field


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class TelemetrySettings(Settings):
    """Settings of logs, traces and metrics."""

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        default="info", description="Least severe level that is logged: debug, info, warning or error."
    )
    log_format: Annotated[Literal["json", "console"], BeforeValidator(_lower)] = Field(
        default="json", description="Form of a log line: json for machines, console for people."
    )
    otlp_endpoint: HttpAddress | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="OpenTelemetry collector that takes traces by OTLP over gRPC, as in http://localhost:4317. "
        "Unset: traces are not recorded.",
    )
    tracing_enabled: bool = Field(default=True, description="Whether traces are recorded.")
    trace_ratio: float = Field(
        default=1.0, ge=0, le=1, description="Share of the traces begun here that is recorded, 0 to 1."
    )
    trace_content: bool = Field(
        default=False,
        description="Whether spans carry prompts, answers, arguments and results of tools, and queries of memories, "
        "masked and cut. They may hold personal data: off by default.",
    )
    metrics_enabled: bool = Field(default=True, description="Whether /metrics is served.")
