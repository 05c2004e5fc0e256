"""What was said, on spans: nothing by default; masked and cut where it is asked for."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from minion_telemetry import Telemetry, TelemetrySettings
from minion_telemetry.content import MAXIMUM_CHARACTERS
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


def written(*, recorded: bool, text: str = "", value: Any = None, messages: list[dict[str, Any]] | None = None) -> Any:
    """Gives the attributes of a span that all of it was written onto."""
    telemetry, spans = recording(content=recorded)
    with telemetry.span("work") as span:
        telemetry.content.write_text(span, "text", text)
        telemetry.content.write_json(span, "value", lambda: value)
        telemetry.content.write_messages(span, "messages", lambda: reversed(messages or []))
    return ended(telemetry, spans).attributes


def recording(*, content: bool = True) -> tuple[Telemetry, InMemorySpanExporter]:
    spans = InMemorySpanExporter()
    settings = TelemetrySettings(trace_content=content)
    return Telemetry.start("gateway", settings, span_exporters=[spans]), spans


def ended(telemetry: Telemetry, spans: InMemorySpanExporter) -> ReadableSpan:
    """Ends it and gives its one span. Flushed first: the end waits for no longer than a machine may stand still."""
    telemetry.flush()
    telemetry.shutdown()
    [span] = spans.get_finished_spans()
    return span


def message(text: str) -> dict[str, Any]:
    return {"role": "user", "parts": [{"type": "text", "content": text}]}


def test_it_is_off_by_default() -> None:
    assert not TelemetrySettings.load({}).trace_content
    assert written(recorded=False, text="hello", value={"a": 1}, messages=[message("hello")]) == {}


def test_personal_data_and_secrets_are_masked() -> None:
    found = written(
        recorded=True,
        text="write to ada@example.org",
        value={"to": "ada@example.org", "password": "hunter2", "card": 4111111111111111, "n": 3, "yes": True},
        messages=[message("call +44 20 7946 0958")],
    )
    assert found["text"] == "write to [EMAIL]"
    assert json.loads(found["value"]) == {
        "to": "[EMAIL]",
        "password": "[SECRET]",
        "card": "[CARD]",
        "n": 3,
        "yes": True,
    }
    assert json.loads(found["messages"]) == [message("call [PHONE]")]


def test_the_newest_messages_that_fit_are_kept_and_stay_json() -> None:
    messages = [message(f"{number} " + "wörter " * 60) for number in range(200)]
    found = written(recorded=True, messages=messages)["messages"]
    assert MAXIMUM_CHARACTERS // 2 < len(found) <= MAXIMUM_CHARACTERS
    kept = json.loads(found)
    assert kept == messages[-len(kept) :]


def test_a_long_text_is_cut_within_its_message() -> None:
    [kept] = json.loads(written(recorded=True, messages=[message("x" * 100_000)])["messages"])
    assert kept["parts"][0]["content"].startswith("xxx")
    assert kept["parts"][0]["content"].endswith("…")
    assert len(kept["parts"][0]["content"]) < MAXIMUM_CHARACTERS


def test_no_more_messages_are_made_than_are_kept() -> None:
    made: list[int] = []

    def newest_first() -> Iterator[dict[str, Any]]:
        for number in range(1_000):
            made.append(number)
            yield message(f"{number} " + "wörter " * 60)

    telemetry, spans = recording()
    with telemetry.span("work") as span:
        telemetry.content.write_messages(span, "messages", newest_first)
    finished = ended(telemetry, spans)
    assert finished.attributes is not None
    kept = json.loads(str(finished.attributes["messages"]))
    # The last one was made to see that it does not fit.
    assert len(made) <= len(kept) + 1 < 50


@pytest.mark.parametrize("text", ["x" * 2_000, "\x00" * 2_000, "\ud800" * 2_000])
def test_a_newest_message_that_does_not_fit_is_cut_and_stays_json(text: str) -> None:
    newest = {"role": "assistant", "parts": [{"type": "text", "content": f"{n} {text}"} for n in range(20)]}
    found = written(recorded=True, messages=[message("before"), newest])["messages"]
    assert len(found) <= MAXIMUM_CHARACTERS
    [kept] = json.loads(found)
    assert kept["role"] == "assistant"
    assert kept["parts"][0]["content"].startswith(f"0 {text[:100]}")


def test_a_value_that_is_too_long_keeps_its_beginning_and_stays_json() -> None:
    found = written(recorded=True, value={"rows": [f"row {number}" for number in range(10_000)]})["value"]
    assert MAXIMUM_CHARACTERS // 2 < len(found) <= MAXIMUM_CHARACTERS
    *rows, cut, mark = json.loads(found)["rows"]
    assert rows == [f"row {number}" for number in range(len(rows))]
    assert (cut[-1], mark) == ("…", "…")


def test_a_cut_lets_no_part_of_a_secret_through() -> None:
    token = f"eyJ{'h' * 40}.{'p' * 6_000}.{'s' * 40}"
    for begins in (MAXIMUM_CHARACTERS - 4, MAXIMUM_CHARACTERS - 20, MAXIMUM_CHARACTERS - 200):
        for secret in ("ada.lovelace@example.org", "4111 1111 1111 1111", token, f"sk-{'k' * 200}"):
            found = written(recorded=True, text="w " * (begins // 2) + secret + " w" * 5_000)["text"]
            assert len(found) <= MAXIMUM_CHARACTERS
            assert secret[:4] not in found


def test_what_is_cut_costs_no_masking() -> None:
    mail = "The quick brown fox jumps over ada.lovelace@example.org, and then again. " * 200
    value = {"rows": [mail] * 1_000, "text": mail * 100}
    messages = [{"role": "tool", "parts": [value]}] * 100
    began = time.thread_time()
    written(recorded=True, text=mail * 1_000, value=value, messages=messages)
    # All of it takes seconds.
    assert time.thread_time() - began < 1


def test_what_json_cannot_hold_costs_no_call() -> None:
    found = written(recorded=True, text="x" * 20_000, value={"large": 2**70, "half": "\ud800"})
    assert json.loads(found["value"]) == {"large": 2**70, "half": "\ud800"}
    assert len(found["text"]) == MAXIMUM_CHARACTERS


def test_a_failed_block_is_marked_by_its_type_alone() -> None:
    spans = InMemorySpanExporter()
    telemetry = Telemetry.start("gateway", TelemetrySettings(), span_exporters=[spans])
    try:
        with telemetry.span("work"):
            raise RuntimeError("what the user said")
    except RuntimeError:
        pass
    span = ended(telemetry, spans)
    assert span.attributes == {"error.type": "RuntimeError"}
    assert not span.status.is_ok
    assert "what the user said" not in span.to_json()
