"""Our spans behave as the SDK's, which is their yardstick."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minion_telemetry.otlp import encode
from minion_telemetry.spans import SCOPE, RecordedSpan, SpanMakers
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    get_current_span,
    set_span_in_context,
)

_PARENTS = st.builds(
    SpanContext,
    trace_id=st.integers(0, 2**128 - 1),
    span_id=st.integers(0, 2**64 - 1),
    is_remote=st.booleans(),
    trace_flags=st.sampled_from([TraceFlags(bits) for bits in range(4)]),
    trace_state=st.sampled_from([None, TraceState([("vendor", "x")])]),
)


class Kept:
    """Keeps the spans that end."""

    def __init__(self) -> None:
        self.spans: list[RecordedSpan] = []

    def take(self, span: RecordedSpan) -> None:
        self.spans.append(span)


def made(kept: Kept | None = None, ratio: float = 1.0) -> Tracer:
    return SpanMakers(Resource({}), [kept or Kept()], ratio=ratio).get_tracer(SCOPE)


def theirs(ratio: float) -> Tracer:
    sampler = ParentBased(TraceIdRatioBased(ratio))
    return TracerProvider(sampler=sampler, shutdown_on_exit=False).get_tracer("test")


@given(_PARENTS, st.sampled_from([0.0, 1.0]))
def test_a_trace_that_others_began_is_gone_on_with_as_the_sdk_does(parent: SpanContext, ratio: float) -> None:
    context = set_span_in_context(NonRecordingSpan(parent), Context())
    ours, sdks = (tracer.start_span("span", context) for tracer in (made(ratio=ratio), theirs(ratio)))
    assert ours.is_recording() == sdks.is_recording()
    one, other = ours.get_span_context(), sdks.get_span_context()
    assert one.is_valid
    assert one.trace_flags == other.trace_flags
    assert one.trace_state == other.trace_state
    assert (one.trace_id == parent.trace_id) == (other.trace_id == parent.trace_id) == parent.is_valid
    assert one.span_id != parent.span_id


def test_of_the_traces_that_begin_here_a_share_is_recorded() -> None:
    tracer = made(ratio=0.25)
    spans = [tracer.start_span("span", Context()) for _ in range(4_000)]
    recorded = [span for span in spans if span.is_recording()]
    # Five standard deviations to each side.
    assert 863 < len(recorded) < 1_137
    contexts = [span.get_span_context() for span in spans]
    assert len({context.trace_id for context in contexts}) == len({context.span_id for context in contexts}) == 4_000
    assert all(span.is_recording() == bool(span.get_span_context().trace_flags.sampled) for span in spans)
    bound = TraceIdRatioBased.get_bound_for_rate(0.25)
    assert all((context.trace_id & (2**64 - 1) < bound) == bool(context.trace_flags & 1) for context in contexts)


def test_a_span_of_a_block_is_current_in_it_and_ends_with_it() -> None:
    kept = Kept()
    tracer = made(kept)
    with tracer.start_as_current_span("outer") as outer:
        assert get_current_span() is outer
        with tracer.start_as_current_span("inner"):
            pass
    assert [span.name for span in kept.spans] == ["inner", "outer"]
    assert kept.spans[0].parent == outer.get_span_context()
    assert kept.spans[0].end_time is not None
    assert kept.spans[0].start_time <= kept.spans[0].end_time


def test_once_ended_nothing_changes() -> None:
    kept = Kept()
    span = made(kept).start_span("work", attributes={"a": 1})
    span.set_attributes({"b": 2})
    span.end(5)
    span.end(6)
    _change(span)
    assert kept.spans == [span]
    assert (kept.spans[0].name, kept.spans[0].attributes, kept.spans[0].end_time) == ("work", {"a": 1, "b": 2}, 5)
    assert kept.spans[0].status.is_unset
    assert kept.spans[0].events == []


def _change(span: Span) -> None:
    span.set_attribute("c", 3)
    span.set_attributes({"d": 4})
    span.set_status(StatusCode.ERROR)
    span.update_name("other")
    span.record_exception(RuntimeError())


@pytest.mark.parametrize(
    "said",
    [
        [],
        [Status(StatusCode.ERROR, "BROKE")],
        [Status(StatusCode.UNSET), Status(StatusCode.OK), Status(StatusCode.ERROR)],
        [Status(StatusCode.ERROR), Status(StatusCode.UNSET)],
        [StatusCode.ERROR, StatusCode.OK],
    ],
)
def test_a_status_is_kept_as_the_sdk_keeps_it(said: list[Status | StatusCode]) -> None:
    kept, sdks = Kept(), theirs(1.0).start_span("work")
    ours = made(kept).start_span("work")
    for status in said:
        ours.set_status(status)
        sdks.set_status(status)
    ours.end()
    found = sdks.status  # type: ignore[attr-defined] # the SDK's span has it
    assert (kept.spans[0].status.status_code, kept.spans[0].status.description) == (
        found.status_code,
        found.description,
    )


@pytest.mark.parametrize(
    ("scope", "said", "kept"),
    [
        (SCOPE, "UNAVAILABLE", "UNAVAILABLE"),
        (SCOPE, "RuntimeError: what the user said", None),
        (SCOPE, "SAID\n", None),
        ("opentelemetry.instrumentation.grpc", "UNAVAILABLE", None),
    ],
)
def test_a_description_is_kept_where_it_is_a_word_of_ours(scope: str, said: str, kept: str | None) -> None:
    taker = Kept()
    maker = SpanMakers(Resource({}), [taker], ratio=1.0).get_tracer(scope)
    for status in (Status(StatusCode.ERROR, said), StatusCode.ERROR):
        span = maker.start_span("work")
        span.set_status(status, None if isinstance(status, Status) else said)
        span.end()
    assert [(span.status.status_code, span.status.description) for span in taker.spans] == [
        (StatusCode.ERROR, kept)
    ] * 2


def test_what_a_block_raises_marks_its_span_by_its_type_alone() -> None:
    kept = Kept()
    with pytest.raises(RuntimeError), made(kept).start_as_current_span("work"):
        raise RuntimeError("what the user said")
    [span] = kept.spans
    assert span.attributes == {"error.type": "RuntimeError"}
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert [(event.name, event.attributes) for event in span.events] == [
        ("exception", {"exception.type": "RuntimeError"})
    ]
    encoded, _ = encode(kept.spans)
    assert b"what the user said" not in encoded.SerializeToString()


def test_a_block_may_leave_its_span_to_others() -> None:
    kept = Kept()
    with (
        pytest.raises(RuntimeError),
        made(kept).start_as_current_span(
            "work", record_exception=False, set_status_on_exception=False, end_on_exit=False
        ) as span,
    ):
        raise RuntimeError
    assert kept.spans == []
    span.end()
    assert kept.spans[0].status.is_unset
    assert (kept.spans[0].attributes, kept.spans[0].events) == ({}, [])


def test_events_are_bounded() -> None:
    kept = Kept()
    span = made(kept).start_span("work")
    for number in range(1_000):
        span.add_event(f"event {number}")
    span.end()
    assert len(kept.spans[0].events) == 128
