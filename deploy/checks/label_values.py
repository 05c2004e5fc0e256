"""The values that labels have, as far as they are fixed: one that is misspelt in a query never fits anything.

Ours are those that docs/metrics.md tells; a test holds one against the other.
"""

import importlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import grpc
import minion
from minion_cli.development.ports import DOCUMENTED
from promql_parser import Matcher, MatchOp

from deploy.checks.places import hint

JOBS = frozenset({"minion", "postgres", "otel-collector", "prometheus"})

# By metric and label; a histogram by its own name.
OF_METRICS: Mapping[tuple[str, str], frozenset[str]] = {
    ("db_client_connections", "state"): frozenset({"idle", "used"}),
    ("trace_spans_total", "outcome"): frozenset({"exported", "failed", "dropped"}),
    ("tls_certificate_expiry_timestamp_seconds", "listener"): frozenset({"tls", "mtls"}),
    ("agent_executions_total", "state"): frozenset({"completed", "failed", "input_required"}),
    ("agent_time_seconds_total", "part"): frozenset({"own", "provider", "tools"}),
    ("llm_latency_seconds", "operation"): frozenset({"chat", "embeddings"}),
    ("llm_latency_seconds", "outcome"): frozenset({"ok", "error", "canceled"}),
    ("llm_tokens_total", "kind"): frozenset({"input", "cached_input", "output", "reasoning"}),
    ("tool_duration_seconds", "outcome"): frozenset({"ok", "error", "timeout", "canceled", "refused"}),
    ("session_summaries_total", "outcome"): frozenset({"made", "skipped", "failed"}),
    ("rollout_checks_total", "outcome"): frozenset({"kept", "schedule", "guardrail", "blind", "failed"}),
    ("memory_searches_total", "plan"): frozenset({"exact", "hnsw", "hnsw_then_exact", "lexical"}),
    ("extraction_jobs_total", "outcome"): frozenset({"done", "tried", "failed"}),
}
_POSTGRES_STATES = frozenset(
    {
        *("active", "idle", "idle in transaction", "idle in transaction (aborted)"),
        *("fastpath function call", "disabled"),
    }
)
_OF_OTHERS: Mapping[tuple[str, str], frozenset[str]] = {
    ("pg_stat_activity_count", "state"): _POSTGRES_STATES,
    ("pg_stat_activity_max_tx_duration", "state"): _POSTGRES_STATES,
    ("ALERTS", "alertstate"): frozenset({"pending", "firing"}),
    ("ALERTS", "severity"): frozenset({"critical", "warning", "info"}),
}
# Whatever the metric.
_OF_LABELS: Mapping[str, frozenset[str]] = {
    "job": JOBS,
    "service": frozenset(DOCUMENTED),
    # As Go spells them.
    "grpc_code": frozenset(
        {"OK" if code is grpc.StatusCode.OK else code.name.title().replace("_", "") for code in grpc.StatusCode}
        - {"Cancelled"}
        | {"Canceled"}
    ),
    "grpc_type": frozenset({"unary", "client_stream", "server_stream", "bidi_stream"}),
}
# One pair of brackets around the whole.
_GROUP = re.compile(r"\((?:\?:)?([^()]*)\)")
_SUFFIX = re.compile(r"_(bucket|sum|count)$")


def faults(metric: str, matcher: Matcher) -> Iterator[str]:
    """Yields the values of a matcher that the label never has."""
    values = _values(metric, matcher.name)
    if values is None or matcher.value == "":
        return
    if matcher.op in (MatchOp.Equal, MatchOp.NotEqual):
        if matcher.value not in values:
            yield f"{metric} has no {matcher.name} {matcher.value}{hint(matcher.value, values)}"
        return
    grouped = _GROUP.fullmatch(matcher.value)
    for part in (grouped[1] if grouped else matcher.value).split("|"):
        try:
            fits = any(re.fullmatch(part, value) for value in values)
        except re.error:
            # A part of a group: the whole is looked at, and promtool says whether it is an expression.
            fits = True
        if not fits:
            yield f"{metric} has no {matcher.name} {part}{hint(part, values)}"


def _values(metric: str, label: str) -> frozenset[str] | None:
    for name in (metric, _SUFFIX.sub("", metric)):
        for table in (OF_METRICS, _OF_OTHERS):
            if (name, label) in table:
                return table[name, label]
    if label in ("grpc_service", "grpc_method"):
        return _contract()[label]
    return _OF_LABELS.get(label)


@cache
def _contract() -> Mapping[str, frozenset[str]]:
    """The services and methods of the contract, and those of gRPC's own that our servers have."""
    services = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    methods = {"Check", "Watch", "List", "ServerReflectionInfo"}
    for folder in map(Path, minion.__path__):
        for path in folder.rglob("*_service_pb2.py"):
            module = importlib.import_module(".".join(path.relative_to(folder.parent).with_suffix("").parts))
            for service in module.DESCRIPTOR.services_by_name.values():
                services.add(service.full_name)
                methods.update(method.name for method in service.methods)
    return {"grpc_service": frozenset(services), "grpc_method": frozenset(methods)}
