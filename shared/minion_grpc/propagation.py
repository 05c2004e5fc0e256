"""The trace that a call comes with, and goes on with: its `traceparent` (W3C Trace Context, level 1)."""

import re
from collections.abc import Iterable

import grpc
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.{0,256})?")
_MAXIMUM_STATE_CHARACTERS = 512


def extract(metadata: Iterable[tuple[str, str | bytes]]) -> Context:
    """Gives the context that a call's metadata names as its parent; an empty one where it names none, or a bad one."""
    parent: str | bytes = ""
    state: str | bytes = ""
    for key, value in metadata:
        if key == "traceparent":
            parent = value
        elif key == "tracestate":
            state = value
    match = _TRACEPARENT.fullmatch(parent) if isinstance(parent, str) else None
    if match is None:
        return Context()
    trace_id, span_id, flags = match.groups()
    span_context = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=_state(state),
    )
    # Zeros are no ids.
    return set_span_in_context(NonRecordingSpan(span_context), Context()) if span_context.is_valid else Context()


def inject(metadata: grpc.aio.Metadata, span: Span) -> None:
    """Names a span as the parent of what the called does; one that is none leaves the metadata alone."""
    context = span.get_span_context()
    if not context.is_valid:
        return
    metadata["traceparent"] = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    if context.trace_state:
        metadata["tracestate"] = context.trace_state.to_header()


def _state(text: str | bytes) -> TraceState | None:
    if not text or not isinstance(text, str) or len(text) > _MAXIMUM_STATE_CHARACTERS:
        return None
    return TraceState.from_header([text])
