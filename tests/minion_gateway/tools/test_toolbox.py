"""Calling tools: arguments, time, failures, sizes."""

import asyncio
import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import pytest
from minion_errors import Unavailable
from minion_gateway.agents.domain import BoundTool, ToolEffect
from minion_gateway.tools.builtins.clock import Clock
from minion_gateway.tools.domain import Builtin, Invocation, ToolFailedError
from minion_gateway.tools.metrics import ToolMetrics
from minion_gateway.tools.service import MAXIMUM_OUTPUT, Toolbox
from prometheus_client import CollectorRegistry, generate_latest

NOON = datetime(2026, 7, 1, 12, 0, 0, 5, tzinfo=UTC)


def bound(schema: dict[str, Any] | None = None, *, builtin: str = "it", seconds: float = 60.0) -> BoundTool:
    return BoundTool("it", "It.", schema or {"type": "object"}, builtin, ToolEffect.READ_ONLY, seconds, 0, {}, "d")


def invocation(**arguments: Any) -> Invocation:
    return Invocation(arguments, UUID(int=1), UUID(int=2), UUID(int=3), "ann", "hello", 1, {})


def toolbox(
    result: Any = None,
    *,
    error: Exception | None = None,
    seconds: float = 0,
    registry: CollectorRegistry | None = None,
) -> Toolbox:
    async def it(_: Invocation) -> Any:
        await asyncio.sleep(seconds)
        if error is not None:
            raise error
        return result

    builtins: dict[str, Builtin] = {"it": it, "clock": Clock(lambda: NOON)}
    return Toolbox(builtins, ToolMetrics(registry or CollectorRegistry(), builtins))


async def test_a_result_comes_back() -> None:
    outcome = await toolbox({"a": [1, None]}).call(bound(), invocation())
    assert (outcome.output, outcome.is_error, outcome.uncertain) == ({"a": [1, None]}, False, False)
    assert outcome.nanoseconds > 0


async def test_arguments_are_checked_before_anything_is_called() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n", "m"]}
    outcome = await toolbox(error=AssertionError("called")).call(bound(schema), invocation(n="x"))
    assert outcome.is_error
    assert "n:" in outcome.output
    assert '"m" is a required property' in outcome.output


async def test_a_hundred_thousand_faults_take_no_time() -> None:
    schema = {"type": "object", "properties": {"a": {"items": {"anyOf": [{"type": "string"}] * 5}}}}
    began = time.process_time()
    outcome = await toolbox(error=AssertionError("called")).call(bound(schema), invocation(a=[1] * 100_000))
    assert outcome.is_error
    assert "don't fit the tool's schema" in outcome.output
    assert time.process_time() - began < 1


async def test_a_schema_fetches_nothing() -> None:
    outcome = await toolbox().call(bound({"$ref": "http://127.0.0.1:1/schema"}), invocation())
    assert outcome.is_error
    assert "the schema itself is broken" in outcome.output


async def test_time_runs_out_and_the_effect_is_uncertain() -> None:
    outcome = await toolbox(seconds=60).call(bound(seconds=0.02), invocation())
    assert (outcome.is_error, outcome.uncertain) == (True, True)
    assert "longer than 0.02 s" in outcome.output


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ToolFailedError("No such city."), "No such city."),
        (Unavailable("Gone.", reason="PEER_UNAVAILABLE"), "PEER_UNAVAILABLE: Gone."),
        (TimeoutError("secret"), "The tool failed inside; it may have taken effect."),
        (RuntimeError("secret"), "The tool failed inside; it may have taken effect."),
        (TimeoutError("its own"), "The tool failed inside; it may have taken effect."),
    ],
)
async def test_a_failure_is_an_answer(error: Exception, said: str) -> None:
    registry = CollectorRegistry()
    outcome = await toolbox(error=error, registry=registry).call(bound(), invocation())
    assert (outcome.is_error, outcome.output) == (True, said)
    assert outcome.uncertain == ("may have taken effect" in said)
    assert registry.get_sample_value("tool_duration_seconds_count", {"tool": "it", "outcome": "error"}) == 1


async def test_what_needs_approval_is_not_called_where_nobody_can_be_asked() -> None:
    tool = replace(bound(), needs_approval=True)
    outcome = await toolbox(error=AssertionError("called")).call(tool, invocation())
    assert (outcome.is_error, outcome.uncertain) == (True, False)
    assert "approval" in outcome.output


async def test_a_builtin_that_is_not_there_is_an_answer() -> None:
    outcome = await toolbox().call(bound(builtin="teleport"), invocation())
    assert outcome.is_error
    assert "no builtin 'teleport'" in outcome.output


@pytest.mark.parametrize(
    ("result", "media_type"),
    [
        (["x" * 1_000] * 200, "application/json"),
        ("ü" * 60_000, "text/plain; charset=utf-8"),
        ({str(n): n for n in range(20_000)}, "application/json"),
        ("x" * 10_000_000, "text/plain; charset=utf-8"),
    ],
)
async def test_a_result_that_is_too_large_is_an_excerpt_and_all_of_it(result: Any, media_type: str) -> None:
    outcome = await toolbox(result).call(bound(), invocation())
    assert outcome.whole is not None
    assert outcome.whole.media_type == media_type
    read = outcome.whole.data.decode()
    assert (read if isinstance(result, str) else orjson.loads(read)) == result
    assert outcome.whole.sha256 == hashlib.sha256(outcome.whole.data).hexdigest()
    assert len(outcome.output.encode()) < MAXIMUM_OUTPUT / 2
    assert read.startswith(outcome.output.removesuffix("…"))


async def test_a_result_that_is_not_too_large_is_itself() -> None:
    result = ["x" * 1_000] * 90
    outcome = await toolbox(result).call(bound(), invocation())
    assert (outcome.output, outcome.whole) == (result, None)


async def test_a_large_result_stalls_nothing() -> None:
    result = [{"n": n, "text": "x" * 20} for n in range(150_000)]
    stalls: list[float] = []

    async def beat() -> None:
        clock = asyncio.get_running_loop().time
        while True:
            before = clock()
            await asyncio.sleep(0.001)
            stalls.append(clock() - before)

    beating = asyncio.create_task(beat())
    outcome = await toolbox(result).call(bound(), invocation())
    beating.cancel()
    assert outcome.whole is not None
    # Looked at on the loop it takes half a second and more; the serializer alone holds the interpreter for a while.
    assert len(stalls) > 10


async def test_numbers_that_json_can_not_name_become_nothing() -> None:
    outcome = await toolbox({"a": float("nan"), "b": "x\x00"}).call(bound(), invocation())
    assert outcome.output == {"a": None, "b": "x\ufffd"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, {"utc": "2026-07-01T12:00:00Z", "weekday": "Wednesday"}),
        (
            {"timezone": "Europe/Paris"},
            {
                "utc": "2026-07-01T12:00:00Z",
                "weekday": "Wednesday",
                "local": "2026-07-01T14:00:00+02:00",
                "timezone": "Europe/Paris",
            },
        ),
    ],
)
async def test_the_clock_tells_the_time(arguments: dict[str, str], told: dict[str, str]) -> None:
    assert (await toolbox().call(bound(builtin="clock"), invocation(**arguments))).output == told


@pytest.mark.parametrize("name", ["Nowhere", "../etc/passwd", "/etc/passwd", "Europe", "x" * 300])
async def test_the_clock_knows_no_such_zone(name: str) -> None:
    outcome = await toolbox().call(bound(builtin="clock"), invocation(timezone=name))
    assert outcome.is_error
    assert "There is no time zone" in outcome.output


async def test_calls_are_counted_by_builtin_and_by_how_they_went() -> None:
    registry = CollectorRegistry()

    def counted(tool: str, outcome: str) -> float | None:
        return registry.get_sample_value("tool_duration_seconds_count", {"tool": tool, "outcome": outcome})

    box = toolbox(1, registry=registry)
    assert counted("it", "ok") == counted("clock", "error") == 0
    named = replace(bound(), name="ada@example.org")
    await box.call(named, invocation())
    await box.call(replace(named, builtin="ada@example.org"), invocation())
    await box.call(replace(named, needs_approval=True), invocation())
    assert (counted("it", "ok"), counted("builtin", "refused"), counted("it", "refused")) == (1, 1, 1)
    assert b"example.org" not in generate_latest(registry)


@pytest.mark.parametrize(
    ("error", "seconds", "limit", "outcome"),
    [
        (ToolFailedError("no"), 0, 60, "error"),
        (Unavailable("away", reason="AWAY"), 0, 60, "error"),
        (ValueError("bug"), 0, 60, "error"),
        (None, 60, 0.05, "timeout"),
    ],
)
async def test_a_call_that_goes_wrong_is_counted_as_that(
    error: Exception | None, seconds: float, limit: float, outcome: str
) -> None:
    registry = CollectorRegistry()
    await toolbox(error=error, seconds=seconds, registry=registry).call(bound(seconds=limit), invocation())
    assert registry.get_sample_value("tool_duration_seconds_count", {"tool": "it", "outcome": outcome}) == 1
    assert registry.get_sample_value("tool_duration_seconds_count", {"tool": "it", "outcome": "ok"}) == 0


async def test_a_call_that_is_stopped_is_counted_as_that() -> None:
    registry = CollectorRegistry()
    call = asyncio.create_task(toolbox(seconds=60, registry=registry).call(bound(seconds=60), invocation()))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert registry.get_sample_value("tool_duration_seconds_count", {"tool": "it", "outcome": "canceled"}) == 1
