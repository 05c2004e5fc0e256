"""What a turn leaves for those who operate the system: one trace, counted calls, lines that tell nothing personal."""

import asyncio
import json
import re
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.end_to_end.collector import Collector
from tests.end_to_end.stacks import RunningStack, until
from tests.end_to_end.turns import Taken, new_agent, new_session, take_turn

_SERVICES = {"minion-gateway", "minion-registry", "minion-session", "minion-memory", "minion-activity"}
_ADDRESS = "ada.lovelace@example.org"


@pytest.fixture(scope="module")
async def turn(stack: RunningStack) -> Taken:
    """A turn whose user has an e-mail address for a name, and says it too."""
    agent = await new_agent(stack, "calculator", "remember")
    session_id = await new_session(stack, agent.agent_id, user=_ADDRESS)
    taken = await take_turn(stack, session_id, f"My address is {_ADDRESS}. What is 6 * 7?")
    assert "42" in taken.run.answer
    return taken


async def test_one_trace_crosses_all_services(turn: Taken, collector: Collector) -> None:
    def roots() -> list[str]:
        spans = collector.trace(turn.run.trace_id)
        known = {span.span_id for span in spans}
        return [span.name for span in spans if span.parent_id not in known]

    # One root: whoever looks at the trace sees one tree. Each service sends its spans in its own time.
    async def complete() -> bool:
        services = {span.service for span in collector.trace(turn.run.trace_id)}
        return services >= _SERVICES and roots() == ["/minion.gateway.v1.RunService/StreamRun"]

    await until(complete)
    spans = collector.trace(turn.run.trace_id)
    names = " ".join(span.name for span in spans)
    for part in ("BeginTurn", "SearchMemories", "AppendMessages", "RecordActivities", "chat", "execute_tool"):
        assert part in names
    assert any("gen_ai.usage.input_tokens" in span.attributes for span in spans)
    assert not any(_ADDRESS in str(span.attributes) for span in spans)


@pytest.mark.parametrize("service", sorted(name.removeprefix("minion-") for name in _SERVICES))
async def test_each_service_counts_its_calls(turn: Taken, stack: RunningStack, service: str) -> None:
    own = {"agent_executions_total", "agent_duration_seconds", "llm_latency_seconds"} if service == "gateway" else set()
    own |= {"active_sessions"} if service == "session" else set()
    calls = ("grpc_server_started_total", "grpc_server_handled_total", "grpc_server_handling_seconds_bucket")

    # The audit of the turn, which is what the activity service is called for, follows the answer.
    async def counted() -> bool:
        metrics = await asyncio.to_thread(_metrics, stack, service)
        for name in ("agent_executions_total", "agent_duration_seconds", "llm_latency_seconds", "active_sessions"):
            assert bool(re.search(rf"^{name}", metrics, re.MULTILINE)) == (name in own), name
        methods = rf"{{[^}}]*grpc_service=\"minion\.{service}\.v1\."
        return all(re.search(rf"^{name}{methods}[^}}]*}} [1-9]", metrics, re.MULTILINE) for name in calls)

    await until(counted)


def test_the_operations_port_serves_nothing_else(stack: RunningStack) -> None:
    for path, expected in (("/healthz", 200), ("/readyz", 200), ("/", 404), ("/metrics/all", 404)):
        with closing(HTTPConnection(stack.operations["session"], timeout=60)) as connection:
            connection.request("GET", path)
            assert connection.getresponse().status == expected, path


async def test_the_turns_log_lines_share_its_trace_and_tell_nothing_personal(turn: Taken, stack: RunningStack) -> None:
    # A service writes its line after the caller has had the answer.
    async def written() -> bool:
        whole = stack.log.read_text().rpartition("\n")[0]
        lines: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]
        ours = [line.get("service") for line in lines if line.get("trace_id") == turn.run.trace_id]
        return {"gateway", "session", "memory"} <= set(ours)

    await until(written)
    assert _ADDRESS not in stack.log.read_text()


def _metrics(stack: RunningStack, service: str) -> str:
    with closing(HTTPConnection(stack.operations[service], timeout=60)) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
