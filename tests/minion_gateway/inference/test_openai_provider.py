"""Our side of OpenAI's protocol, against a server that speaks it."""

import asyncio
import time
from contextlib import aclosing

import pytest
from minion_errors import FailedPrecondition, InvalidArgument, MinionError, ResourceExhausted, Unavailable
from minion_gateway.inference.domain import (
    ChatMessage,
    Delta,
    Finished,
    FinishReason,
    Role,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolSpec,
    Usage,
)
from minion_gateway.inference.faults import may_be_charged
from minion_gateway.inference.providers.openai import OpenAIProvider
from minion_testing.fake_provider import FakeProvider
from minion_testing.provider_script import Fault, FaultKind, Reply, Script

from tests.minion_gateway.inference.provider_stage import asking, collect, drained, provider_at, proxied, text_of

CLOCK = ToolSpec("clock", "Tells the time.", {"type": "object", "properties": {"zone": {"type": "string"}}})


async def test_an_answer_comes_whole_with_its_usage(fake: FakeProvider, provider: OpenAIProvider) -> None:
    fake.push(Reply("Paris.", input_tokens=12, output_tokens=3, cached_tokens=8, reasoning_tokens=1))
    completion = await provider.complete(asking("The capital of France?", attempt="run:2:1"))
    assert completion.text == "Paris."
    assert completion.usage == Usage(12, 3, 8, 1)
    assert completion.finish_reason is FinishReason.STOP
    assert (completion.model, completion.provider, completion.provider_model) == (
        "openai/gpt-4o-mini",
        "openai",
        "gpt-4o-mini",
    )
    assert fake.ledger.attempts == ["run:2:1"]


async def test_the_request_says_all_that_was_asked(fake: FakeProvider, provider: OpenAIProvider) -> None:
    call = ToolCall("call_1", "clock", '{"zone": "UTC"}')
    request = asking(
        "",
        messages=(
            ChatMessage(Role.SYSTEM, "Be brief."),
            ChatMessage(Role.USER, "What time is it?"),
            ChatMessage(Role.ASSISTANT, "", (call,)),
            ChatMessage(Role.TOOL, "12:00", tool_call_id="call_1"),
        ),
        tools=(CLOCK,),
        temperature=0.5,
        maximum_output_tokens=100,
        response_schema={"type": "object"},
    )
    await provider.complete(request)
    function = {"name": "clock", "description": "Tells the time.", "parameters": CLOCK.parameters}
    assert fake.ledger.asked[0].body == {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What time is it?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "UTC"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "12:00"},
        ],
        "tools": [{"type": "function", "function": function}],
        "temperature": 0.5,
        "max_tokens": 100,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
    }


async def test_a_stream_brings_the_words_then_the_whole(fake: FakeProvider, provider: OpenAIProvider) -> None:
    fake.push(Reply("one two three", input_tokens=5, output_tokens=3))
    deltas = await drained(provider.stream(asking("count")))
    assert deltas[:-1] == [TextDelta("one "), TextDelta("two "), TextDelta("three")]
    assert isinstance(deltas[-1], Finished)
    assert deltas[-1].completion.text == "one two three"
    assert deltas[-1].completion.usage == Usage(5, 3)
    [asked] = await fake.ledger.until(1, ended=True)
    assert asked.outcome == "completed"


async def test_tool_calls_come_in_pieces_and_whole(fake: FakeProvider, provider: OpenAIProvider) -> None:
    fake.push(Script(Reply(tool_calls=(("clock", '{"zone":"UTC"}'), ("clock", '{"zone":"CET"}'))), times=2))
    deltas = await drained(provider.stream(asking("time?", tools=(CLOCK,))))
    first = [delta for delta in deltas if isinstance(delta, ToolCallDelta) and delta.index == 0]
    assert (first[0].name, "".join(piece.arguments for piece in first)) == ("clock", '{"zone":"UTC"}')
    assert isinstance(deltas[-1], Finished)
    streamed = deltas[-1].completion
    assert [call.decoded() for call in streamed.tool_calls] == [{"zone": "UTC"}, {"zone": "CET"}]
    assert streamed.finish_reason is FinishReason.TOOL_CALLS
    whole = await provider.complete(asking("time?", tools=(CLOCK,)))
    assert [call.arguments for call in whole.tool_calls] == [call.arguments for call in streamed.tool_calls]


@pytest.mark.parametrize("counts", [{"input_tokens": -1}, {"output_tokens": -1}, {"output_tokens": 2**63}])
async def test_usage_that_cannot_be_is_estimated(
    fake: FakeProvider, provider: OpenAIProvider, counts: dict[str, int]
) -> None:
    fake.push(Script(Reply("hello", **counts), times=2))  # type: ignore[arg-type]
    completion = await provider.complete(asking("a question"))
    assert completion.usage.estimated
    assert completion.usage.output_tokens > 0
    [*_, finished] = await drained(provider.stream(asking("a question")))
    assert isinstance(finished, Finished)
    assert finished.completion.usage == completion.usage


async def test_usage_that_nobody_counted_is_estimated_and_says_so(fake: FakeProvider, provider: OpenAIProvider) -> None:
    fake.push(Script(Reply("four words of answer", counts_tokens=False), times=2))
    completion = await provider.complete(asking("a question"))
    assert completion.usage.estimated
    assert completion.usage.output_tokens > 0
    [*_, finished] = await drained(provider.stream(asking("a question")))
    assert isinstance(finished, Finished)
    assert finished.completion.usage == completion.usage


async def test_one_connection_serves_streams_in_a_row(fake: FakeProvider) -> None:
    async with proxied(fake) as (proxy, provider):
        for _ in range(5):
            await drained(provider.stream(asking("again")))
        assert proxy.accepted == 1


REFUSALS = [
    (Fault(FaultKind.KEY_REFUSED), FailedPrecondition, "PROVIDER_CREDENTIAL_REFUSED"),
    (Fault(FaultKind.RATE_LIMITED, seconds=30), ResourceExhausted, "PROVIDER_RATE_LIMITED"),
    (Fault(FaultKind.QUOTA_EXHAUSTED), ResourceExhausted, "PROVIDER_RATE_LIMITED"),
    (Fault(FaultKind.CONTEXT_TOO_LONG), InvalidArgument, "CONTEXT_TOO_LONG"),
    (Fault(FaultKind.MODEL_UNKNOWN), InvalidArgument, "MODEL_NOT_FOUND"),
    (Fault(FaultKind.SERVER_ERROR, status=422), InvalidArgument, "PROVIDER_REQUEST_REFUSED"),
]


@pytest.mark.parametrize(("fault", "kind", "reason"), REFUSALS, ids=[fault.kind.value for fault, *_ in REFUSALS])
async def test_a_refusal_is_typed_and_asked_once(
    fake: FakeProvider, provider: OpenAIProvider, fault: Fault, kind: type[MinionError], reason: str
) -> None:
    fake.push(Script(fault, times=None))
    with pytest.raises(kind) as refused:
        await provider.complete(asking("hello"))
    assert refused.value.reason == reason
    assert not may_be_charged(refused.value)
    with pytest.raises(kind):
        await drained(provider.stream(asking("hello")))
    assert len(fake.ledger.asked) == 2


async def test_a_refused_key_is_not_repeated_in_the_error(fake: FakeProvider) -> None:
    async with provider_at(fake.base_url, api_key="sk-wrong-and-secret") as wrong:
        with pytest.raises(FailedPrecondition) as refused:
            await wrong.complete(asking("hello"))
    assert refused.value.metadata["setting"] == "OPENAI_API_KEY"
    assert "sk-wrong" not in f"{refused.value} {refused.value.metadata}"


async def test_retry_after_is_honoured(fake: FakeProvider, provider: OpenAIProvider) -> None:
    fake.push(Fault(FaultKind.RATE_LIMITED, seconds=0.4), Reply("at last"))
    begun = time.monotonic()
    assert (await provider.complete(asking("hello"))).text == "at last"
    assert time.monotonic() - begun >= 0.4
    assert len(fake.ledger.asked) == 2


async def test_a_wait_beyond_the_limit_is_left_to_the_caller(fake: FakeProvider, provider: OpenAIProvider) -> None:
    fake.push(Fault(FaultKind.RATE_LIMITED, seconds=30))
    with pytest.raises(ResourceExhausted) as refused:
        await provider.complete(asking("hello"))
    assert refused.value.retry_after is not None
    assert refused.value.retry_after.total_seconds() == 30


async def test_a_failing_server_is_asked_as_often_as_set(fake: FakeProvider, provider: OpenAIProvider) -> None:
    fake.push(Script(Fault(FaultKind.SERVER_ERROR, status=503), times=None))
    with pytest.raises(Unavailable) as failed:
        await provider.complete(asking("hello"))
    assert failed.value.reason == "PROVIDER_UNAVAILABLE"
    assert len(fake.ledger.asked) == 3


async def test_a_stream_is_tried_again_before_its_first_token(fake: FakeProvider, provider: OpenAIProvider) -> None:
    fake.push(Fault(FaultKind.SERVER_ERROR), Reply("better"))
    assert text_of(await drained(provider.stream(asking("hello")))) == "better"


BREAKS = [
    (FaultKind.CUT, "PROVIDER_ANSWER_INVALID"),
    (FaultKind.MALFORMED, "PROVIDER_ANSWER_INVALID"),
    (FaultKind.ERROR_MIDWAY, "PROVIDER_UNAVAILABLE"),
    (FaultKind.UNFINISHED, "PROVIDER_ANSWER_INVALID"),
]


@pytest.mark.parametrize(("kind", "reason"), BREAKS, ids=[kind.value for kind, _ in BREAKS])
async def test_a_stream_that_breaks_says_so_and_is_not_repeated(
    fake: FakeProvider, provider: OpenAIProvider, kind: FaultKind, reason: str
) -> None:
    fake.push(Fault(kind, after_chunks=3))
    seen: list[Delta] = []
    with pytest.raises(Unavailable) as broken:
        await collect(provider.stream(asking("a b c d e f")), seen)
    assert broken.value.reason == reason
    assert may_be_charged(broken.value)
    assert seen == [TextDelta("echo: "), TextDelta("a ")]
    assert len(fake.ledger.asked) == 1


async def test_an_unreadable_answer_is_an_error(fake: FakeProvider, provider: OpenAIProvider) -> None:
    fake.push(Fault(FaultKind.MALFORMED))
    with pytest.raises(Unavailable) as unreadable:
        await provider.complete(asking("hello"))
    assert unreadable.value.reason == "PROVIDER_ANSWER_INVALID"
    assert may_be_charged(unreadable.value)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_silent_provider_is_given_up_and_counted_as_charged(fake: FakeProvider, streamed: bool) -> None:
    fake.push(Fault(FaultKind.STALL))
    async with provider_at(fake.base_url, answer_seconds=0.3, idle_seconds=0.3) as impatient:
        with pytest.raises(Unavailable) as silent:
            await (drained(impatient.stream(asking("hello"))) if streamed else impatient.complete(asking("hello")))
    assert silent.value.reason == "PROVIDER_UNAVAILABLE"
    assert may_be_charged(silent.value)
    assert len(fake.ledger.asked) == 1


async def test_silence_in_a_stream_is_given_up(fake: FakeProvider) -> None:
    fake.push(Fault(FaultKind.STALL_MIDWAY, after_chunks=3))
    async with provider_at(fake.base_url, idle_seconds=0.3) as impatient:
        with pytest.raises(Unavailable) as silent:
            await drained(impatient.stream(asking("a b c d")))
    assert silent.value.reason == "PROVIDER_UNAVAILABLE"


async def test_a_provider_that_is_not_there_was_not_charged() -> None:
    async with provider_at("http://127.0.0.1:1/v1", retry_wait_seconds=0) as nobody:
        with pytest.raises(Unavailable) as away:
            await nobody.complete(asking("hello"))
    assert away.value.reason == "PROVIDER_UNAVAILABLE"
    assert not may_be_charged(away.value)
    assert away.value.retry_after is not None


async def test_a_connection_reset_while_waiting_may_have_been_charged(fake: FakeProvider) -> None:
    fake.push(Fault(FaultKind.STALL))
    async with proxied(fake) as (proxy, provider):
        waiting = asyncio.create_task(provider.complete(asking("hello")))
        await fake.ledger.until(1)
        proxy.cut()
        with pytest.raises(Unavailable) as reset:
            await waiting
    assert may_be_charged(reset.value)


@pytest.mark.parametrize("midway", [False, True])
async def test_cancellation_closes_the_providers_connection(
    fake: FakeProvider, provider: OpenAIProvider, midway: bool
) -> None:
    fake.push(Fault(FaultKind.STALL_MIDWAY if midway else FaultKind.STALL, after_chunks=3))
    words = asyncio.Event()

    async def read() -> None:
        async with aclosing(provider.stream(asking("a b c d"))) as deltas:
            async for _ in deltas:
                words.set()

    reading = asyncio.create_task(read())
    await fake.ledger.until(1)
    if midway:
        await words.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    [asked] = await fake.ledger.until(1, ended=True)
    assert asked.outcome == "client_gone"


async def test_leaving_a_stream_closes_the_providers_connection(fake: FakeProvider, provider: OpenAIProvider) -> None:
    fake.push(Fault(FaultKind.STALL_MIDWAY, after_chunks=3))
    async with aclosing(provider.stream(asking("hello"))) as deltas:
        async for _ in deltas:
            break
    [asked] = await fake.ledger.until(1, ended=True)
    assert asked.outcome == "client_gone"


async def test_a_whole_answer_can_be_cancelled(fake: FakeProvider, provider: OpenAIProvider) -> None:
    fake.push(Fault(FaultKind.STALL))
    waiting = asyncio.create_task(provider.complete(asking("hello")))
    await fake.ledger.until(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    [asked] = await fake.ledger.until(1, ended=True)
    assert asked.outcome == "client_gone"


async def test_redirects_are_not_followed(fake: FakeProvider, provider: OpenAIProvider) -> None:
    fake.push(Script(Fault(FaultKind.REDIRECTED), times=None))
    with pytest.raises(InvalidArgument) as refused:
        await provider.complete(asking("hello"))
    assert refused.value.reason == "PROVIDER_REQUEST_REFUSED"
    assert len(fake.ledger.asked) == 1
