"""The trace of a run: who did what under the names of the conventions, and what was said only where it is asked for."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest_asyncio
from minion.registry.v1 import agent_pb2
from minion_testing.fake_provider import FakeProvider
from minion_testing.postgres import ClonedDatabase
from minion_testing.provider_script import Fault, FaultKind, Reply
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from tests.minion_gateway.runs.stage import Client, Stage, staging, until

# Words that only a user, a model or a tool says.
_ASKED, _ANSWERED, _REMEMBERED, _LOOKED_UP = "zebrafinch", "wolverine", "capybara", "pangolin"
_CANARIES = (_ASKED, _ANSWERED, _REMEMBERED, _LOOKED_UP)
_ADDRESS = "ada.lovelace@example.org"
_CONTENT = {
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.memory.query.text",
}


# Runs stay with their replica however busy the machine is: one that is recovered is a trace of its own.
_LEASE_SECONDS = 30.0


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def silent(postgres: ClonedDatabase, model_cache: Path) -> AsyncIterator[Stage]:
    """The services as they are by default."""
    async with staging(postgres, model_cache, lease_seconds=_LEASE_SECONDS) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def telling(postgres: ClonedDatabase, model_cache: Path) -> AsyncIterator[Stage]:
    """The services, told to record what is said."""
    variables = {"MINION_TRACE_CONTENT": "true"}
    async with staging(postgres, model_cache, variables=variables, lease_seconds=_LEASE_SECONDS) as running:
        yield running


async def talk(client: Client, provider: FakeProvider) -> str:
    """Takes a turn that remembers, recalls and goes wrong in its tools; returns the run's id."""
    recalling = agent_pb2.BehaviorSettings(memory=agent_pb2.MemoryPolicy(recall=True))
    session_id = await client.conversation(tools=("remember", "recall", "calculator"), behavior=recalling)
    provider.push(
        Reply(
            f"Let me see, {_ANSWERED}.",
            tool_calls=(
                ("remember", json.dumps({"content": f"Ada has a {_REMEMBERED}."})),
                ("recall", json.dumps({"query": f"Who has a {_LOOKED_UP}?"})),
                ("calculator", json.dumps({"expression": f"1/{_LOOKED_UP}"})),
            ),
            cached_tokens=64,
            reasoning_tokens=2,
            input_tokens=100,
            output_tokens=20,
        ),
        Reply(f"It is a {_ANSWERED}, of {_ADDRESS}.", input_tokens=120, output_tokens=7),
    )
    run = await client.create(session_id, f"I am {_ADDRESS}. Where is my {_ASKED}?")
    assert _ANSWERED in run.answer
    return run.trace_id


async def traced(stage: Stage, trace_id: str) -> list[ReadableSpan]:
    """Waits for the whole trace, the audit's delivery included, and returns it.

    Each step's rows leave in a delivery of their own, whose spans end one after the other: while one is under way, rows
    are left or a span's parent is missing.
    """
    async with await stage.database.connect("gateway", "owner") as owner:

        async def complete() -> list[ReadableSpan]:
            if await owner.fetch("SELECT FROM gateway.outbox WHERE payload ->> 'trace_id' = $1 LIMIT 1", trace_id):
                return []
            spans = [
                span
                for served in stage.services.values()
                for span in served.spans()
                if f"{span.context.trace_id:032x}" == trace_id
            ]
            whole = len(roots(spans)) == 1 and any(span.name == "activity.record_activities" for span in spans)
            return spans if whole else []

        found: list[ReadableSpan] = await until(complete)
        return found


def roots(spans: list[ReadableSpan]) -> list[ReadableSpan]:
    known = {span.context.span_id for span in spans}
    return [span for span in spans if span.parent is None or span.parent.span_id not in known]


def named(spans: list[ReadableSpan], beginning: str) -> list[Mapping[str, Any]]:
    found = [span.attributes or {} for span in spans if span.name.startswith(beginning)]
    assert found, beginning
    return found


async def test_a_run_is_one_tree_under_the_names_of_the_conventions(silent: Stage) -> None:
    async with Client(silent) as client:
        spans = await traced(silent, await talk(client, silent.provider))
    # The client's own span, and below it the server's.
    assert [span.name for span in roots(spans)] == ["/minion.gateway.v1.RunService/CreateRun"]

    [run] = named(spans, "invoke_agent agent-")
    assert run["gen_ai.operation.name"] == "invoke_agent"
    assert run["gen_ai.agent.version"] == "1"
    assert {"gen_ai.agent.id", "gen_ai.agent.name", "gen_ai.conversation.id", "minion.run.id"} <= set(run)
    assert (run["gen_ai.usage.input_tokens"], run["gen_ai.usage.output_tokens"]) == (220, 27)
    assert run["gen_ai.usage.cache_read.input_tokens"] == 64
    assert run["minion.run.state"] == "COMPLETED"

    first, second = named(spans, "chat gpt-4o-mini")
    assert first["gen_ai.provider.name"] == "openai"
    assert first["gen_ai.request.model"] == "gpt-4o-mini"
    assert first["gen_ai.response.model"]
    assert first["gen_ai.usage.cache_read.input_tokens"] == 64
    assert first["gen_ai.usage.reasoning.output_tokens"] == 2
    assert list(first["gen_ai.response.finish_reasons"]) == ["tool_calls"]
    assert list(second["gen_ai.response.finish_reasons"]) == ["stop"]
    assert "gen_ai.usage.cache_read.input_tokens" not in second

    assert {each["gen_ai.embeddings.dimension.count"] for each in named(spans, "embeddings ")} == {384}
    tools = {each["gen_ai.tool.name"]: each for each in named(spans, "execute_tool ")}
    assert set(tools) == {"remember", "recall", "calculator"}
    assert tools["calculator"]["error.type"] == "tool"
    assert all(each["gen_ai.tool.call.id"] for each in tools.values())

    for search in named(spans, "search_memory"):
        assert search["gen_ai.operation.name"] == "search_memory"
        assert search["gen_ai.memory.store.id"] == run["gen_ai.agent.id"]
        assert search["gen_ai.memory.record.count"] >= 0
        assert search["minion.memory.plan"] == "exact"
    [stored] = named(spans, "upsert_memory")
    assert stored["gen_ai.memory.record.count"] == 1

    [begun] = named(spans, "session.begin_turn")
    assert begun["db.system.name"] == "postgresql"
    assert begun["db.namespace"].endswith("|session")
    assert begun["db.query.summary"] == "session.begin_turn"
    calls = [span for span in spans if span.name == "/minion.session.v1.SessionService/BeginTurn"]
    assert {span.kind for span in calls} == {SpanKind.CLIENT, SpanKind.SERVER}
    for call in calls:
        assert call.attributes is not None
        assert call.attributes["rpc.method"] == "minion.session.v1.SessionService/BeginTurn"
        assert call.attributes["rpc.response.status_code"] == "OK"
        assert (call.kind is SpanKind.CLIENT) == (call.attributes.get("server.address") == "127.0.0.1")


async def test_nothing_that_was_said_is_in_any_span(silent: Stage) -> None:
    async with Client(silent) as client:
        spans = await traced(silent, await talk(client, silent.provider))
        # A call that fails is told of by its code: messages quote what was asked.
        silent.provider.push(Fault(FaultKind.KEY_REFUSED))
        failed = await client.create(await client.conversation(), f"And my {_ASKED}?")
        spans += await traced(silent, failed.trace_id)
    for span in spans:
        told = span.to_json()
        assert not [word for word in (*_CANARIES, _ADDRESS) if word in told], told
        assert not _CONTENT & set(span.attributes or {}), told


async def test_what_was_said_is_there_where_it_is_asked_for(telling: Stage) -> None:
    async with Client(telling) as client:
        spans = await traced(telling, await talk(client, telling.provider))
    first, second = named(spans, "chat gpt-4o-mini")
    asked = json.loads(first["gen_ai.input.messages"])
    assert [message["role"] for message in asked] == ["system", "user"]
    assert asked[-1]["parts"] == [{"type": "text", "content": f"I am [EMAIL]. Where is my {_ASKED}?"}]
    [answer] = json.loads(first["gen_ai.output.messages"])
    assert answer["finish_reason"] == "tool_calls"
    assert answer["parts"][0] == {"type": "text", "content": f"Let me see, {_ANSWERED}."}
    assert answer["parts"][1]["type"] == "tool_call"
    assert answer["parts"][1]["arguments"] == {"content": f"Ada has a {_REMEMBERED}."}
    results = [message for message in json.loads(second["gen_ai.input.messages"]) if message["role"] == "tool"]
    assert [part["type"] for message in results for part in message["parts"]] == ["tool_call_response"] * 3
    assert json.loads(second["gen_ai.output.messages"])[0]["parts"][0]["content"] == f"It is a {_ANSWERED}, of [EMAIL]."

    tools = {each["gen_ai.tool.name"]: each for each in named(spans, "execute_tool ")}
    assert json.loads(tools["recall"]["gen_ai.tool.call.arguments"]) == {"query": f"Who has a {_LOOKED_UP}?"}
    assert "outcome" in json.loads(tools["remember"]["gen_ai.tool.call.result"])
    searched = {each["gen_ai.memory.query.text"] for each in named(spans, "search_memory")}
    assert searched == {f"I am [EMAIL]. Where is my {_ASKED}?", f"Who has a {_LOOKED_UP}?"}
    assert not [span.name for span in spans if _ADDRESS in span.to_json()]
