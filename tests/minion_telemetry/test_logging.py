import asyncio
import io
import json
import logging
from typing import Any

import orjson
import pytest
import structlog
from minion_telemetry import PlainLog, Telemetry, TelemetrySettings, bind_fields, bound_fields, configure_logging


def lines(log: io.BytesIO) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in log.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_time_level_and_context(log: io.BytesIO) -> None:
    with bound_fields(run_id="r1"):
        structlog.get_logger().info("step done", seq=3)
    [line] = lines(log)
    assert line["event"] == "step done"
    assert (line["level"], line["run_id"], line["seq"]) == ("info", "r1", 3)
    assert line["timestamp"].startswith("20")


def test_what_is_bound_is_masked_and_ends_with_its_block(log: io.BytesIO) -> None:
    bound = {"principal": "user:ann@example.com", "said": "mail to bob@example.com", "note": "bound"}
    with bound_fields(**bound, password="abc"):
        structlog.get_logger().info("inside", note="own")
    structlog.get_logger().info("outside")
    inside, outside = lines(log)
    assert (inside["principal"], inside["said"]) == ("user:[EMAIL]", "mail to [EMAIL]")
    assert (inside["note"], inside["password"]) == ("own", "[SECRET]")
    assert not {"principal", "said", "note", "password"} & outside.keys()


def test_tasks_inherit_what_is_bound_and_keep_what_they_bind(log: io.BytesIO) -> None:
    async def task() -> None:
        bind_fields(seq=1)
        structlog.get_logger().info("inside")

    async def main() -> None:
        with bound_fields(run_id="r1"):
            await asyncio.create_task(task())
            structlog.get_logger().info("outside")

    asyncio.run(main())
    inside, outside = lines(log)
    assert (inside["run_id"], inside["seq"]) == ("r1", 1)
    assert outside["run_id"] == "r1"
    assert "seq" not in outside


def test_a_plain_line_is_a_loggers(log: io.BytesIO) -> None:
    telemetry = Telemetry.start("test", TelemetrySettings())
    with bound_fields(service="test"), telemetry.tracer.start_as_current_span("work"):
        structlog.get_logger().info("done", code="OK", duration_ms=1.5)
        PlainLog().info("done", {"code": "OK", "duration_ms": 1.5})
    telemetry.shutdown()
    by_logger, plain = lines(log)
    assert plain.pop("timestamp") >= by_logger.pop("timestamp")
    assert plain == by_logger


def test_a_plain_line_masks_what_is_bound_and_nothing_of_its_own(log: io.BytesIO) -> None:
    with bound_fields(principal="user:ann@example.com"):
        PlainLog().info("done", {"method": "bob@example.com"})
    [line] = lines(log)
    assert (line["principal"], line["method"]) == ("user:[EMAIL]", "bob@example.com")


def test_a_plain_line_keeps_to_the_level(log: io.BytesIO) -> None:
    configure_logging("warning", "json", stream=log)
    PlainLog().info("quiet", {})
    assert log.getvalue() == b""


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
