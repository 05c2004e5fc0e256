from minion_cli.demo import trace
from minion_telemetry import attributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer


def _tracer(service: str, spans: InMemorySpanExporter) -> Tracer:
    provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider.get_tracer("test")


def test_a_tree_has_parents_before_children_in_the_order_of_their_start() -> None:
    spans = InMemorySpanExporter()
    gateway, session = _tracer("minion-gateway", spans), _tracer("minion-session", spans)
    with gateway.start_as_current_span("/minion.gateway.v1.RunService/StreamRun") as root:
        with session.start_as_current_span("first"), session.start_as_current_span("inner"):
            pass
        with gateway.start_as_current_span(
            "chat", attributes={attributes.GEN_AI_USAGE_INPUT_TOKENS: 12, attributes.GEN_AI_USAGE_OUTPUT_TOKENS: 3}
        ):
            pass
    with gateway.start_as_current_span("another trace"):
        pass
    trace_id = f"{root.get_span_context().trace_id:032x}"
    branches = trace.tree(spans.get_finished_spans(), trace_id)
    assert [branch.guide + branch.name for branch in branches] == [
        "RunService.StreamRun",
        "├─ first",
        "│  └─ inner",
        "└─ chat",
    ]
    assert branches[0].start == 0
    assert branches[0].took >= branches[1].took
    assert branches[-1].detail == "12 tokens in, 3 out"
    assert trace.services(spans.get_finished_spans(), trace_id) == ["gateway", "session"]


def test_a_span_whose_parent_is_missing_stands_at_the_top() -> None:
    spans = InMemorySpanExporter()
    tracer = _tracer("minion-gateway", spans)
    with tracer.start_as_current_span("lost"):
        with tracer.start_as_current_span("kept") as kept:
            pass
        finished = spans.get_finished_spans()
    branches = trace.tree(finished, f"{kept.get_span_context().trace_id:032x}")
    assert [branch.guide + branch.name for branch in branches] == ["kept"]
