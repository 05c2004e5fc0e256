"""Answers that are JSON of a schema: what may be asked, what comes, what is refused."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from minion.gateway.v1 import inference_pb2 as pb
from minion.gateway.v1 import inference_service_pb2 as service_pb
from minion_grpc.wire import to_struct
from minion_testing.errors import refused
from minion_testing.fake_provider import FakeProvider
from minion_testing.provider_script import Fault, FaultKind, Reply

from tests.minion_gateway.inference.inference_stage import Served, serving
from tests.minion_gateway.inference.provider_stage import API_KEY

SCHEMA = {
    "title": "A city",
    "type": "object",
    "properties": {"city": {"type": "string", "pattern": "^[A-Z]"}},
    "required": ["city"],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
async def served(fake: FakeProvider, cache: Path) -> AsyncIterator[Served]:
    async with serving(
        cache, openai_api_key=API_KEY, openai_base_url=fake.base_url, provider_retry_wait_seconds=0.5
    ) as running:
        yield running


def asking(schema: dict[str, Any], model: str = "", **values: Any) -> service_pb.CompleteRequest:
    message = pb.ChatMessage(role=pb.CHAT_ROLE_USER, text="The capital of France?")
    return service_pb.CompleteRequest(messages=[message], response_schema=to_struct(schema), model=model, **values)


def streaming(schema: dict[str, Any]) -> service_pb.StreamCompleteRequest:
    message = pb.ChatMessage(role=pb.CHAT_ROLE_USER, text="The capital of France?")
    return service_pb.StreamCompleteRequest(messages=[message], response_schema=to_struct(schema))


async def test_the_schema_reaches_the_provider_and_the_answer_matches_it(served: Served, fake: FakeProvider) -> None:
    fake.push(Reply('{"city": "Paris"}'))
    completion = (await served.stub.Complete(asking(SCHEMA))).completion
    assert orjson.loads(completion.text) == {"city": "Paris"}
    assert fake.ledger.asked[0].body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "A_city", "schema": SCHEMA},
    }


async def test_a_streamed_answer_matches_it_too(served: Served, fake: FakeProvider) -> None:
    fake.push(Reply('{"city": "Paris"}'), Reply('{"city": "paris"}'))
    events = [event async for event in served.stub.StreamComplete(streaming(SCHEMA))]
    assert events[-1].completion.text == '{"city": "Paris"}'
    async with refused(grpc.StatusCode.UNAVAILABLE, "PROVIDER_ANSWER_INVALID"):
        async for _ in served.stub.StreamComplete(streaming(SCHEMA)):
            pass


@pytest.mark.parametrize("text", ["Paris, of course.", '{"city": 7}', '{"city": "Paris"', "[]"])
async def test_another_answer_is_refused_and_audited_with_its_cost(
    served: Served, fake: FakeProvider, text: str
) -> None:
    fake.push(Reply(text, input_tokens=1_000, output_tokens=500))
    async with refused(grpc.StatusCode.UNAVAILABLE, "PROVIDER_ANSWER_INVALID"):
        await served.stub.Complete(asking(SCHEMA))
    [call] = served.recorded
    assert (call.reason, call.usage.output_tokens) == ("PROVIDER_ANSWER_INVALID", 500)
    assert call.cost_nanos


async def test_an_answer_that_was_cut_says_so_itself(served: Served, fake: FakeProvider) -> None:
    fake.push(Reply('{"city": "Pa', finish_reason="length"))
    completion = (await served.stub.Complete(asking(SCHEMA))).completion
    assert (completion.finish_reason, completion.text) == (pb.FINISH_REASON_LENGTH, '{"city": "Pa')


async def test_a_model_that_takes_no_schema_says_so(served: Served, fake: FakeProvider) -> None:
    fake.push(Fault(FaultKind.SCHEMA_REFUSED))
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "RESPONSE_SCHEMA_UNSUPPORTED"):
        await served.stub.Complete(asking(SCHEMA))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strange"},
        {"$ref": "https://example.com/schema.json"},
        {"properties": {"next": {"$ref": "#"}}},
        {"properties": {"word": {"pattern": "("}}},
        {"properties": {"word": {"pattern": "(a{1000}){1000}"}}},
        {"description": "x" * (64 * 1024)},
    ],
)
async def test_what_is_no_schema_is_refused(served: Served, fake: FakeProvider, schema: dict[str, Any]) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
        await served.stub.Complete(asking(schema))
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
        async for _ in served.stub.StreamComplete(streaming(schema)):
            pass
    assert fake.ledger.asked == []


async def test_the_stand_in_answers_by_any_schema(served: Served) -> None:
    schema = {"type": "object", "properties": {"said": {"type": "string"}}, "required": ["said"]}
    completion = (await served.stub.Complete(asking(schema, model="local/stand-in"))).completion
    assert "stand-in" in orjson.loads(completion.text)["said"]
