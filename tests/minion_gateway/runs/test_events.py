"""What watchers are told: gapless, in order, and byte for byte the same on every replica."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from minion.gateway.v1 import run_pb2, run_service_pb2
from minion_testing.errors import refused
from minion_testing.fake_provider import FakeProvider
from minion_testing.provider_script import Fault, FaultKind, Reply, Script
from minion_testing.serving import Served

from tests.minion_gateway.runs.stage import Client, Stage

NAMES = '{"timezone": "Europe/Paris"}'


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def other(stage: Stage) -> AsyncIterator[Served]:
    """Another replica."""
    async with stage.second_gateway() as served:
        yield served


def events(raw: list[bytes]) -> list[run_pb2.RunEvent]:
    return [run_service_pb2.WatchRunResponse.FromString(each).event for each in raw]


async def test_a_replay_is_the_live_stream_byte_for_byte_on_every_replica(
    client: Client, provider: FakeProvider, other: Served
) -> None:
    session_id = await client.conversation(tools=("clock", "calculator"))
    arguments = '{"expression": "2.50 * 4", "zz": 1, "a": [1.0, 2.5e-7, null, {"k": "ü", "b": false}]}'
    provider.push(
        Reply("Looking. ", tool_calls=(("calculator", arguments), ("clock", NAMES)), chunk_seconds=0.03),
        Reply("One two three four.", chunk_seconds=0.03),
    )
    stream: Any = client.channel("gateway").unary_stream(
        "/minion.gateway.v1.RunService/StreamRun",
        request_serializer=run_service_pb2.StreamRunRequest.SerializeToString,
    )
    live = [raw async for raw in stream(run_service_pb2.StreamRunRequest(session_id=session_id, text="go"), timeout=60)]
    run_id = events(live)[0].run_id

    async with other.channel(client.tenant.api_key) as channel:
        elsewhere = await client.watch(run_id, channel=channel)
    assert live == elsewhere == await client.watch(run_id)
    assert [event.sequence for event in events(elsewhere)] == list(range(1, len(elsewhere) + 1))


async def test_another_replica_tells_a_run_while_it_happens(
    client: Client, provider: FakeProvider, other: Served
) -> None:
    session_id = await client.conversation()
    provider.push(Fault(FaultKind.STALL_MIDWAY, after_chunks=2))
    call = client.runs.StreamRun(run_service_pb2.StreamRunRequest(session_id=session_id, text="one two three"))
    run_id = (await call.read()).event.run_id
    seen: list[run_pb2.RunEvent] = []
    async with other.channel(client.tenant.api_key) as channel:
        method: Any = channel.unary_stream(
            "/minion.gateway.v1.RunService/WatchRun",
            request_serializer=run_service_pb2.WatchRunRequest.SerializeToString,
            response_deserializer=run_service_pb2.WatchRunResponse.FromString,
        )
        watching = method(run_service_pb2.WatchRunRequest(run_id=run_id))
        async with asyncio.timeout(60):
            while not seen or seen[-1].WhichOneof("event") != "text_delta":
                seen.append((await watching.read()).event)
        provider.release()
        async with asyncio.timeout(60):
            while seen[-1].WhichOneof("event") != "run_finished":
                seen.append((await watching.read()).event)
    call.cancel()
    assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))


async def test_watching_resumes_after_a_sequence(client: Client) -> None:
    run = await client.create(await client.conversation())
    whole = await client.watch(run.run_id)
    assert await client.watch(run.run_id, 1) == whole[1:]
    assert await client.watch(run.run_id, run.last_event_sequence) == []


async def test_watching_ahead_of_a_run_is_refused(client: Client) -> None:
    run = await client.create(await client.conversation())
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "SEQUENCE_AHEAD"):
        await client.watch(run.run_id, run.last_event_sequence + 1)
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
        await client.watch(run.run_id, -1)


async def test_text_that_comes_at_once_is_one_event(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation()
    provider.push(Reply("word " * 200))
    told = await client.stream(session_id)
    texts = [event.text_delta.text for event in told if event.HasField("text_delta")]
    assert "".join(texts) == "word " * 200
    assert len(texts) < 50


async def test_slow_text_is_told_as_it_comes(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation()
    provider.push(Reply("one two three", chunk_seconds=0.5))
    told = await client.stream(session_id)
    texts = [event.text_delta.text for event in told if event.HasField("text_delta")]
    assert "".join(texts) == "one two three"
    # Three pieces came; on a busy machine two of them may be read at once.
    assert len(texts) >= 2


async def test_characters_that_nobody_can_keep_are_replaced(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation(tools=("workspace",))
    provider.push(
        Script(
            Reply(tool_calls=(("workspace", '{"key": "k", "value": "a\\u0000b\\ud800"}'),)),
            times=None,
            after_tools=False,
        ),
        Script(Reply("nul \x00 here"), times=None, after_tools=True),
    )
    run = await client.create(session_id)
    assert run.answer == "nul \ufffd here"
    assert len(await client.watch(run.run_id)) == run.last_event_sequence


async def test_an_answer_that_was_cut_is_asked_again_and_says_so(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation()
    # Words that were shown, then a broken line, 60 ms later.
    provider.push(Fault(FaultKind.STALL_MIDWAY, after_chunks=3), Reply("Whole."))
    call = client.runs.StreamRun(run_service_pb2.StreamRunRequest(session_id=session_id, text="a b c d"))
    told: list[run_pb2.RunEvent] = []
    async with asyncio.timeout(60):
        while not told or told[-1].WhichOneof("event") != "text_delta":
            told.append((await call.read()).event)
        # Released, a stream that stalled ends without an end.
        provider.release()
        while told[-1].WhichOneof("event") != "run_finished":
            told.append((await call.read()).event)
    kinds = [event.WhichOneof("event") for event in told]
    superseded = told[kinds.index("attempt_superseded")].attempt_superseded
    assert (superseded.step_sequence, superseded.attempt, superseded.void_from_sequence) == (2, 2, 2)
    assert told[-1].run_finished.run.answer == "Whole."
    assert [event.text_delta.attempt for event in told if event.HasField("text_delta")] == [1, 2]
    assert [message.parts[0].text for message in await client.messages(session_id)] == ["a b c d", "Whole."]


async def test_an_answer_that_is_cut_again_fails_the_run(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation()
    provider.push(Fault(FaultKind.CUT, after_chunks=3), Fault(FaultKind.CUT, after_chunks=3))
    told = await client.stream(session_id, "a b c d e f")
    run = told[-1].run_finished.run
    assert run.state == run_pb2.RUN_STATE_FAILED
    assert run.error.reason in {"PROVIDER_ANSWER_INVALID", "PROVIDER_UNAVAILABLE"}
    assert len(provider.ledger.asked) == 2


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (FaultKind.KEY_REFUSED, "PROVIDER_CREDENTIAL_REFUSED"),
        (FaultKind.CONTEXT_TOO_LONG, "CONTEXT_TOO_LONG"),
        (FaultKind.QUOTA_EXHAUSTED, "PROVIDER_RATE_LIMITED"),
    ],
)
async def test_a_refusal_of_the_provider_fails_the_run(
    client: Client, provider: FakeProvider, kind: FaultKind, reason: str
) -> None:
    session_id = await client.conversation()
    provider.push(Fault(kind))
    run = await client.create(session_id)
    assert (run.state, run.error.reason) == (run_pb2.RUN_STATE_FAILED, reason)
    # The session is free again at once, and keeps what the user said.
    assert (await client.create(session_id, "again")).state == run_pb2.RUN_STATE_COMPLETED
