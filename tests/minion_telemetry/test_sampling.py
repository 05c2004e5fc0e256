"""The sampler's yardstick is OpenTelemetry's own."""

from hypothesis import given
from hypothesis import strategies as st
from minion_telemetry.sampling import Following
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

_PARENTS = st.builds(
    SpanContext,
    trace_id=st.integers(0, 2**128 - 1),
    span_id=st.integers(0, 2**64 - 1),
    is_remote=st.booleans(),
    trace_flags=st.sampled_from([TraceFlags(0), TraceFlags(1), TraceFlags(3)]),
    trace_state=st.sampled_from([None, TraceState([("vendor", "x")])]),
)


@given(st.none() | _PARENTS, st.integers(1, 2**128 - 1), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_it_decides_as_opentelemetry_does(parent: SpanContext | None, trace_id: int, ratio: float) -> None:
    context = Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())
    ours = Following(ratio).should_sample(context, trace_id, "span", attributes={"a": 1})
    theirs = ParentBased(TraceIdRatioBased(ratio)).should_sample(context, trace_id, "span", attributes={"a": 1})
    assert ours.decision is theirs.decision
    assert ours.attributes == theirs.attributes
    assert (ours.trace_state or None) == (theirs.trace_state or None)
