"""Spans and those who make them, by OpenTelemetry's API.

The SDK's own span costs five times as much: it locks, copies and validates every attribute, and is copied whole when
it ends. Ours trusts its callers, who are in this repository, and is read by the exporting thread once it has ended.
See docs/decisions/0028-spans-are-ours.md.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import getrandbits
from time import time_ns
from typing import Final, Protocol

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
    get_current_span,
    use_span,
)
from opentelemetry.util.types import Attributes, AttributeValue

from minion_telemetry import attributes as names

_SAMPLED: Final = 0x01
# The ids that begin here are random (W3C Trace Context, level 2); of other traces it is passed on what they say.
_RANDOM: Final = 0x02
_FLAGS: Final = tuple(TraceFlags(bits) for bits in range(4))
_UNSET: Final = Status()
# The scope of the spans that this repository makes; an instrumentation library's has another.
SCOPE: Final = "minion"
# What we say of a status: a code or a reason.
_WORD: Final = re.compile(r"[A-Z][A-Z0-9_]*")
# So many of each a span: a loop that adds them for ever must not fill the memory.
_MOST_EVENTS: Final = 128


class Taker(Protocol):
    """Whoever wants the spans that end."""

    def take(self, span: "RecordedSpan") -> None:
        """Takes one; must not block."""


class RecordedSpan(Span):
    """A span that somebody wants. Once it has ended nothing of it changes."""

    __slots__ = (
        "attributes",
        "context",
        "end_time",
        "events",
        "kind",
        "links",
        "name",
        "parent",
        "resource",
        "scope",
        "start_time",
        "status",
        "takers",
    )

    def __init__(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Attributes,
        links: Sequence[Link],
        start_time: int,
        maker: "SpanMaker",
    ) -> None:
        self.name = name
        self.context = context
        self.parent = parent
        self.kind = kind
        self.attributes: dict[str, AttributeValue] = dict(attributes) if attributes else {}
        self.links = links
        self.start_time = start_time
        self.resource = maker.resource
        self.scope = maker.scope
        self.takers = maker.takers
        self.end_time: int | None = None
        self.status = _UNSET
        self.events: list[Event] = []

    def end(self, end_time: int | None = None) -> None:
        """Ends it and hands it on; a second end is none."""
        if self.end_time is not None:
            return
        self.end_time = time_ns() if end_time is None else end_time
        for taker in self.takers:
            taker.take(self)

    def get_span_context(self) -> SpanContext:
        """Gives its ids."""
        return self.context

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Sets several attributes."""
        if self.end_time is None:
            self.attributes.update(attributes)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Sets one attribute."""
        if self.end_time is None:
            self.attributes[key] = value

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """Adds what happened at one moment."""
        if self.end_time is None and len(self.events) < _MOST_EVENTS:
            self.events.append(Event(name, attributes, timestamp))

    def update_name(self, name: str) -> None:
        """Replaces the name."""
        if self.end_time is None:
            self.name = name

    def is_recording(self) -> bool:
        """Tells whether it has not ended."""
        return self.end_time is None

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Sets the status; OK is final, UNSET says nothing.

        A description is kept where it is a code or reason of ours: an instrumentation library's is the peer's message,
        an exception's its text, and both may quote what a user said.
        """
        found = status if isinstance(status, Status) else Status(status, description)
        if found.description and not (self.scope.name == SCOPE and _WORD.fullmatch(found.description)):
            found = Status(found.status_code)
        if self.end_time is None and found.status_code is not StatusCode.UNSET and not self._is_ok():
            self.status = found

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Adds an exception by its type; its text and traceback may hold what a user said, and stand in the log."""
        del escaped
        self.add_event(
            "exception", {names.EXCEPTION_TYPE: type(exception).__qualname__, **(attributes or {})}, timestamp
        )

    def readable(self) -> ReadableSpan:
        """Gives it in the SDK's form, for exporters that are not ours."""
        return ReadableSpan(
            name=self.name,
            context=self.context,
            parent=self.parent,
            resource=self.resource,
            attributes=self.attributes,
            events=self.events,
            links=self.links,
            kind=self.kind,
            status=self.status,
            start_time=self.start_time,
            end_time=self.end_time,
            instrumentation_scope=self.scope,
        )

    def _is_ok(self) -> bool:
        return self.status.status_code is StatusCode.OK


class SpanMaker(Tracer):
    """Makes spans. Follows whoever began the trace, so that no trace has holes; of those that begin here, a share."""

    def __init__(
        self, resource: Resource, scope: InstrumentationScope, takers: Sequence[Taker], *, ratio: float
    ) -> None:
        self.resource = resource
        self.scope = scope
        self.takers = tuple(takers)
        self._bound = TraceIdRatioBased.get_bound_for_rate(ratio)

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        """Starts a span below the context's, or a trace where there is none."""
        del record_exception, set_status_on_exception
        parent: SpanContext | None = get_current_span(context).get_span_context()
        if parent is not None and parent.is_valid:
            trace_id, flags, state = parent.trace_id, parent.trace_flags & (_SAMPLED | _RANDOM), parent.trace_state
        else:
            parent, state = None, None
            trace_id = getrandbits(128) or 1
            begins = trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound
            flags = _RANDOM | _SAMPLED if begins else _RANDOM
        if not self.takers:
            # Whoever records nothing tells those after it not to record either.
            flags &= ~_SAMPLED
        made = SpanContext(trace_id, getrandbits(64) or 1, False, _FLAGS[flags], state)
        if not flags & _SAMPLED:
            return NonRecordingSpan(made)
        begun = time_ns() if start_time is None else start_time
        return RecordedSpan(name, made, parent, kind, attributes, links or (), begun, self)

    @contextmanager
    def start_as_current_span(  # type: ignore[override] # a decorator that nobody here uses it as
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Iterator[Span]:
        """Starts a span and makes it current for a block. What the block raises marks it by its type alone."""
        span = self.start_span(name, context, kind, attributes, links, start_time)
        try:
            with use_span(span, record_exception=record_exception, set_status_on_exception=False):
                yield span
        except Exception as error:
            if set_status_on_exception:
                span.set_attribute(names.ERROR_TYPE, type(error).__qualname__)
                span.set_status(StatusCode.ERROR)
            raise
        finally:
            if end_on_exit:
                span.end()


class SpanMakers(TracerProvider):
    """Makes the makers of one service's spans: a scope each, one resource and the same takers for all."""

    def __init__(self, resource: Resource, takers: Sequence[Taker], *, ratio: float) -> None:
        self.resource = resource
        self._takers = takers
        self._ratio = ratio

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> SpanMaker:
        """Gives the maker of a scope's spans."""
        scope = InstrumentationScope(instrumenting_module_name, instrumenting_library_version, schema_url, attributes)
        return SpanMaker(self.resource, scope, self._takers, ratio=self._ratio)
