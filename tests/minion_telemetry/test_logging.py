import io
import json
import logging
from typing import Any

import orjson
import pytest
import structlog
from minion_telemetry import Telemetry, TelemetrySettings, configure_logging


def lines(log: io.BytesIO) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in log.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_time_level_and_context(log: io.BytesIO) -> None:
    structlog.contextvars.bind_contextvars(run_id="r1")
    structlog.get_logger().info("step done", seq=3)
    [line] = lines(log)
    assert line["event"] == "step done"
    assert (line["level"], line["run_id"], line["seq"]) == ("info", "r1", 3)
    assert line["timestamp"].startswith("20")


def test_lines_below_the_level_are_not_written(log: io.BytesIO) -> None:
    structlog.get_logger().debug("quiet")
    assert log.getvalue() == b""


def test_lines_are_masked_and_secret_fields_never_written(log: io.BytesIO) -> None:
    structlog.get_logger().warning(
        "mail to ann@example.com", note="card 4111111111111111", token="abc", nested={"to": "bob@example.com"}
    )
    text = log.getvalue().decode()
    assert "example.com" not in text
    assert "4111" not in text
    assert "abc" not in text


def test_an_exception_is_one_line_and_masked(log: io.BytesIO) -> None:
    try:
        raise ValueError("no mail for ann@example.com")
    except ValueError:
        structlog.get_logger().exception("failed")
    [line] = lines(log)
    assert line["level"] == "error"
    assert "ValueError: no mail for [EMAIL]" in line["exception"]


def test_the_standard_librarys_loggers_come_out_the_same(log: io.BytesIO) -> None:
    logging.getLogger("some.library").warning("lost %s", "ann@example.com")
    logging.getLogger("some.library").info("chatter")
    [line] = lines(log)
    assert (line["event"], line["level"], line["logger"]) == ("lost [EMAIL]", "warning", "some.library")


def test_a_line_inside_a_span_names_its_trace(log: io.BytesIO) -> None:
    telemetry = Telemetry.start("test", TelemetrySettings())
    with telemetry.tracer.start_as_current_span("work") as span:
        structlog.get_logger().info("inside")
    telemetry.shutdown()
    [line] = lines(log)
    assert line["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert line["span_id"] == f"{span.get_span_context().span_id:016x}"


def test_values_that_json_does_not_know_are_written_as_text(log: io.BytesIO) -> None:
    structlog.get_logger().info("odd", value={1, 2}, kind=object, number=2**70)
    structlog.get_logger().info("odd", text="\ud800")
    first, second = (json.loads(line) for line in log.getvalue().splitlines())
    assert (first["value"], first["number"]) == ([1, 2], 2**70)
    assert second["event"] == "odd"


def test_people_read_the_console_form(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.BytesIO()
    configure_logging("info", "console", stream=stream)
    structlog.get_logger().info("hello", to="ann@example.com")
    structlog.reset_defaults()
    assert "hello" in stream.getvalue().decode()
    assert "[EMAIL]" in stream.getvalue().decode()
