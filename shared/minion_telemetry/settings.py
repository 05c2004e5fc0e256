"""What a deployment decides about logs, traces and metrics."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from minion_telemetry import pairs
from minion_telemetry.otlp_settings import OtlpSettings, lower


def _are_attributes(value: str | None) -> str | None:
    if value is not None:
        pairs.attributes(value)
    return value


class TelemetrySettings(OtlpSettings):
    """Settings of logs, traces and metrics."""

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)] = Field(
        default="info", description="Least severe level that is logged: debug, info, warning or error."
    )
    log_format: Annotated[Literal["json", "console"], BeforeValidator(lower)] = Field(
        default="json", description="Form of a log line: json for machines, console for people."
    )
    resource_attributes: Annotated[str | None, AfterValidator(_are_attributes)] = Field(
        default=None,
        validation_alias="OTEL_RESOURCE_ATTRIBUTES",
        description="Attributes of all that this deployment sends: name=value,name=value, values URL-encoded.",
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
