"""What was said, on spans: nothing by default; masked and cut where it is asked for."""

import json
from typing import Any

from minion_telemetry import Telemetry, TelemetrySettings
from minion_telemetry.content import MAXIMUM_CHARACTERS
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


def written(*, recorded: bool, text: str = "", value: Any = None, messages: list[dict[str, Any]] | None = None) -> Any:
    """Gives the attributes of a span that all of it was written onto."""
    spans = InMemorySpanExporter()
    settings = TelemetrySettings(trace_content=recorded)
    telemetry = Telemetry.start("gateway", settings, span_exporters=[spans])
    with telemetry.span("work") as span:
        telemetry.content.write_text(span, "text", text)
        telemetry.content.write_json(span, "value", lambda: value)
        telemetry.content.write_messages(span, "messages", lambda: messages or [])
    telemetry.shutdown()
    [finished] = spans.get_finished_spans()
    return finished.attributes


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
    telemetry.shutdown()
    [span] = spans.get_finished_spans()
    assert span.attributes == {"error.type": "RuntimeError"}
    assert not span.status.is_ok
    assert "what the user said" not in span.to_json()
