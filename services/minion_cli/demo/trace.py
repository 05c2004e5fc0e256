"""A trace as a tree: which service did what, when, and for how long."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from minion_telemetry import attributes
from opentelemetry.sdk.trace import ReadableSpan

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Branch:
    """One span with its place in the tree; times are milliseconds, `start` counts from the trace's beginning."""

    guide: str  # the lines that lead to it
    service: str
    name: str
    start: float
    took: float
    detail: str


def tree(spans: Iterable[ReadableSpan], trace_id: str) -> list[Branch]:
    """Gives the spans of one trace, parents before children, children by their start.

    A span whose parent isn't among them stands at the top.
    """
    ours = [span for span in spans if f"{span.context.trace_id:032x}" == trace_id]
    known = {span.context.span_id for span in ours}
    children: dict[int | None, list[ReadableSpan]] = defaultdict(list)
    for span in sorted(ours, key=lambda span: span.start_time or 0):
        parent = span.parent.span_id if span.parent is not None and span.parent.span_id in known else None
        children[parent].append(span)
    begin = min((span.start_time or 0 for span in ours), default=0)
    branches: list[Branch] = []

    def walk(parent: int | None, lead: str) -> None:
        below = children[parent]
        for index, span in enumerate(below):
            last = index == len(below) - 1
            fork = "" if parent is None else ("└─ " if last else "├─ ")
            branches.append(_branch(span, lead + fork, begin))
            walk(span.context.span_id, lead + ("" if parent is None else ("   " if last else "│  ")))

    walk(None, "")
    return branches


def services(spans: Iterable[ReadableSpan], trace_id: str) -> Sequence[str]:
    """Lists the services that took part in a trace."""
    return sorted({_service(span) for span in spans if f"{span.context.trace_id:032x}" == trace_id})


def _branch(span: ReadableSpan, guide: str, begin: int) -> Branch:
    start, end = span.start_time or 0, span.end_time or span.start_time or 0
    return Branch(
        guide=guide,
        service=_service(span),
        name=_name(span),
        start=(start - begin) / _MILLION,
        took=(end - start) / _MILLION,
        detail=_detail(span),
    )


def _service(span: ReadableSpan) -> str:
    return str(span.resource.attributes.get("service.name", "?")).removeprefix("minion-")


def _name(span: ReadableSpan) -> str:
    # "/minion.session.v1.SessionService/BeginTurn" says no more than its last two words.
    if span.name.startswith("/minion."):
        service, _, method = span.name.rpartition("/")
        return f"{service.rpartition('.')[2]}.{method}"
    return span.name


def _detail(span: ReadableSpan) -> str:
    found = span.attributes or {}
    parts = []
    read, written = (
        found.get(name) for name in (attributes.GEN_AI_USAGE_INPUT_TOKENS, attributes.GEN_AI_USAGE_OUTPUT_TOKENS)
    )
    if isinstance(read, int) and isinstance(written, int):
        parts.append(f"{read} tokens in, {written} out")
    reason = found.get(attributes.MINION_ERROR_REASON) or found.get(attributes.ERROR_TYPE)
    if isinstance(reason, str):
        parts.append(reason)
    return ", ".join(parts)
