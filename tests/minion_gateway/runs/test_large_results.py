"""Results too large for a message: whole in a blob of the session, an excerpt that names it everywhere else."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import minion_gateway.__main__ as gateway
import orjson
import pytest
import pytest_asyncio
from minion.gateway.v1 import run_pb2
from minion.registry.v1 import agent_pb2
from minion.session.v1 import blob_service_pb2
from minion_gateway.runs import keeping
from minion_gateway.runs.blobs import BlobPeer
from minion_postgres import Database
from minion_testing.fake_provider import FakeProvider
from minion_testing.provider_script import Reply

from tests.faults.large import large, with_large
from tests.minion_gateway.runs.stage import NOBODY, OBJECT, Client, Stage, rows, struct

SIZE = 10_000_000


@pytest_asyncio.fixture(loop_scope="session")
async def client(stage: Stage, provider: FakeProvider) -> AsyncIterator[Client]:
    """A client of a gateway whose calculator returns much."""
    del provider
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway, "builtins", with_large(gateway.builtins))
        async with stage.second_gateway() as generous, Client(stage, generous) as made:
            yield made


async def conversation(client: Client, *tools: str) -> str:
    agent_id = await client.agent(tools=tools)
    large_tool = await client.tool("calculator", name="large", input_schema=struct(OBJECT))
    await client.bind(agent_id, large_tool)
    return await client.session(agent_id)


def wish(size: int = SIZE) -> Reply:
    return Reply(tool_calls=(("large", f'{{"bytes": {size}}}'),))


def finished(events: list[run_pb2.RunEvent]) -> run_pb2.ToolCallFinished:
    (one,) = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
    return one


async def read(client: Client, blob_id: str) -> tuple[Any, bytes]:
    """Reads a blob: what it is, and its bytes."""
    call = client.blobs.GetBlob(blob_service_pb2.GetBlobRequest(blob_id=blob_id))
    answers = [answer async for answer in call]
    return answers[0].blob, b"".join(answer.chunk for answer in answers[1:])


async def test_ten_megabytes_are_kept_whole_and_shown_in_part(
    client: Client, provider: FakeProvider, owner: Database
) -> None:
    session_id = await conversation(client)
    provider.push(wish(), Reply("Much."))
    events = await client.stream(session_id, "give me much")
    result = finished(events)

    blob, whole = await read(client, result.blob_id)
    assert whole == large(SIZE).encode()
    assert (blob.session_id, blob.size_bytes, blob.media_type) == (session_id, SIZE, "text/plain; charset=utf-8")
    assert blob.name.startswith("large ")
    mark = f"(excerpt of {SIZE} bytes of text/plain; charset=utf-8; the whole is blob {result.blob_id})\n"
    assert result.output.string_value.startswith(mark + large(1_000))
    assert not result.is_error
    # The same excerpt for the model, the session and whoever reads the run again.
    told = provider.ledger.asked[-1].body["messages"][-1]
    assert orjson.loads(told["content"]) == result.output.string_value
    kept = (await client.messages(session_id))[2].parts[0].tool_result
    assert (kept.blob_id, kept.output) == (result.blob_id, result.output)
    assert events[-1].run_finished.run.answer == "Much."
    (size,) = await rows(
        owner,
        "SELECT max(octet_length(result::text)) AS bytes FROM gateway.run_steps WHERE run_id = $1",
        events[0].run_id,
    )
    assert size["bytes"] < 64 * 1024
    (row,) = [each for each in await client.audit(events[0].run_id, 4) if each.name == "large"]
    assert row.metadata["blob_id"] == result.blob_id


async def test_the_next_turn_shows_the_excerpt_again(client: Client, provider: FakeProvider) -> None:
    session_id = await conversation(client)
    provider.push(wish(), Reply("Much."))
    blob_id = finished(await client.stream(session_id)).blob_id
    await client.create(session_id, "and now?")
    (told,) = [each for each in provider.ledger.asked[-1].body["messages"] if each["role"] == "tool"]
    assert blob_id in told["content"]
    assert len(told["content"]) < 64 * 1024


async def test_the_same_result_again_is_the_same_blob(client: Client, provider: FakeProvider) -> None:
    session_id = await conversation(client)
    provider.push(wish(200_000), Reply("Much."), wish(200_000), Reply("The same."))
    once = finished(await client.stream(session_id, "once"))
    twice = finished(await client.stream(session_id, "twice"))
    assert once.blob_id == twice.blob_id != ""


async def test_what_fits_into_a_message_is_in_it(client: Client, provider: FakeProvider) -> None:
    session_id = await conversation(client)
    provider.push(wish(90_000), Reply("Some."))
    result = finished(await client.stream(session_id))
    assert (result.blob_id, result.output.string_value) == ("", large(90_000))


async def test_what_no_blob_holds_is_cut_and_says_so(client: Client, provider: FakeProvider) -> None:
    session_id = await conversation(client)
    provider.push(wish(65 * 1024 * 1024), Reply("Too much."))
    events = await client.stream(session_id)
    result = finished(events)
    assert result.blob_id == ""
    assert result.output.string_value.startswith(f"(cut: {65 * 1024 * 1024} bytes")
    assert "BLOB_TOO_LARGE" in result.output.string_value[:200]
    assert events[-1].run_finished.run.answer == "Too much."


async def test_a_model_reads_more_of_it(client: Client, provider: FakeProvider) -> None:
    session_id = await conversation(client, "read_blob")
    provider.push(wish(200_001), Reply("Much."))
    blob_id = finished(await client.stream(session_id)).blob_id
    provider.push(
        Reply(tool_calls=(("read_blob", f'{{"blob_id": "{blob_id}", "offset": 100000, "length": 60}}'),)),
        Reply(tool_calls=(("read_blob", f'{{"blob_id": "{blob_id}", "offset": 200000}}'),)),
        Reply("Read."),
    )
    await client.create(session_id, "read on")
    middle, end = (orjson.loads(each["content"]) for each in provider.ledger.asked[-1].body["messages"][-3::2])
    assert middle == {"text": large(200_001)[100_000:100_060], "size_bytes": 200_001, "next_offset": 100_060}
    assert end == {"text": large(200_001)[200_000:], "size_bytes": 200_001}


async def test_another_sessions_blob_is_not_read(client: Client, provider: FakeProvider) -> None:
    session_id = await conversation(client, "read_blob")
    provider.push(wish(200_000), Reply("Much."))
    blob_id = finished(await client.stream(session_id)).blob_id
    other = await client.session((await client.get((await client.create(session_id)).run_id)).agent_id)
    for wanted in (blob_id, "018f0000-0000-7000-8000-000000000000"):
        provider.push(Reply(tool_calls=(("read_blob", f'{{"blob_id": "{wanted}"}}'),)), Reply("No."))
        result = finished(await client.stream(other, "read theirs"))
        assert result.is_error
        assert result.output.string_value.startswith("BLOB_NOT_FOUND")


async def test_a_session_that_stays_away_costs_the_rest_of_the_result_and_not_the_run(
    stage: Stage, provider: FakeProvider
) -> None:
    # The session is waited for for three seconds; what is spared for the rest is enough for any machine.
    behavior = agent_pb2.BehaviorSettings()
    behavior.max_duration.seconds = 63
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeping, "_SPARED", 60.0)
        patch.setattr(gateway, "builtins", with_large(gateway.builtins))
        patch.setattr(gateway, "BlobPeer", _Lost)
        async with stage.second_gateway() as generous, Client(stage, generous) as client:
            agent_id = await client.agent(behavior=behavior)
            await client.bind(agent_id, await client.tool("calculator", name="large", input_schema=struct(OBJECT)))
            provider.push(wish(200_000), Reply("Some of it."))
            events = await client.stream(await client.session(agent_id))
    result = finished(events)
    assert (result.blob_id, result.is_error) == ("", False)
    assert result.output.string_value.startswith("(cut: 200000 bytes of text/plain; charset=utf-8 could not be kept")
    assert events[-1].run_finished.run.answer == "Some of it."


class _Lost(BlobPeer):
    """The session's blobs, at an address where nobody answers."""

    def __init__(self, _: grpc.aio.Channel) -> None:
        super().__init__(grpc.aio.insecure_channel(NOBODY))
