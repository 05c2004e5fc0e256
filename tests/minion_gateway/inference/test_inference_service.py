"""InferenceService over a real channel."""

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import orjson
import pytest
from minion.gateway.v1 import inference_pb2 as pb
from minion.gateway.v1 import inference_service_pb2 as service_pb
from minion_errors import Unavailable
from minion_gateway.inference.domain import ChatMessage, CompletionRequest, Operation, Role
from minion_grpc.wire import to_struct
from minion_testing.errors import refused
from minion_testing.fake_provider import FakeProvider
from minion_testing.provider_script import Fault, FaultKind, Reply, Script
from minion_testing.stalls import longest_stall
from opentelemetry.trace import SpanKind

from tests.minion_gateway.inference.inference_stage import Served, serving
from tests.minion_gateway.inference.provider_stage import API_KEY


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
async def served(fake: FakeProvider, cache: Path) -> AsyncIterator[Served]:
    async with serving(
        cache, openai_api_key=API_KEY, openai_base_url=fake.base_url, provider_retry_wait_seconds=0.5
    ) as running:
        yield running


def complete(text: str, **values: object) -> service_pb.CompleteRequest:
    message = pb.ChatMessage(role=pb.CHAT_ROLE_USER, text=text)
    return service_pb.CompleteRequest(**{"messages": [message], **values})  # type: ignore[arg-type]


def stream(text: str, **values: object) -> service_pb.StreamCompleteRequest:
    message = pb.ChatMessage(role=pb.CHAT_ROLE_USER, text=text)
    return service_pb.StreamCompleteRequest(**{"messages": [message], **values})  # type: ignore[arg-type]


async def test_complete_asks_the_default_model_and_prices_it(served: Served, fake: FakeProvider) -> None:
    fake.push(Reply("Paris.", input_tokens=1_000, output_tokens=500, cached_tokens=100))
    completion = (await served.stub.Complete(complete("The capital of France?"))).completion
    assert (completion.model, completion.text) == ("openai/gpt-4o-mini", "Paris.")
    assert completion.finish_reason == pb.FINISH_REASON_STOP
    assert (completion.usage.input_tokens, completion.usage.cached_tokens) == (1_000, 100)
    assert completion.cost_nanos == 442_500
    assert fake.ledger.asked[0].body["max_tokens"] == 1_024
    [call] = served.recorded
    assert (call.operation, call.model, call.cost_nanos, call.reason) == (
        Operation.CHAT,
        "openai/gpt-4o-mini",
        442_500,
        "",
    )


async def test_tool_calls_come_as_objects(served: Served, fake: FakeProvider) -> None:
    fake.push(Reply(tool_calls=(("clock", '{"zone": "UTC", "count": 3}'),)))
    tool = pb.ChatTool(name="clock", description="Tells the time.")
    completion = (await served.stub.Complete(complete("time?", tools=[tool]))).completion
    assert completion.finish_reason == pb.FINISH_REASON_TOOL_CALLS
    [call] = completion.tool_calls
    assert (call.name, dict(call.arguments)) == ("clock", {"zone": "UTC", "count": 3})


async def test_a_conversation_with_tools_reaches_the_provider(served: Served, fake: FakeProvider) -> None:
    call = pb.ChatToolCall(tool_call_id="call_1", name="clock")
    call.arguments.update({"zone": "UTC"})
    messages = [
        pb.ChatMessage(role=pb.CHAT_ROLE_SYSTEM, text="Be brief."),
        pb.ChatMessage(role=pb.CHAT_ROLE_USER, text="time?"),
        pb.ChatMessage(role=pb.CHAT_ROLE_ASSISTANT, tool_calls=[call]),
        pb.ChatMessage(role=pb.CHAT_ROLE_TOOL, tool_call_id="call_1", text="12:00"),
    ]
    await served.stub.Complete(complete("", messages=messages, temperature=0.0, max_output_tokens=7))
    body = fake.ledger.asked[0].body
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "tool"]
    assert body["messages"][2]["tool_calls"][0]["function"] == {"name": "clock", "arguments": '{"zone":"UTC"}'}
    assert (body["temperature"], body["max_tokens"]) == (0.0, 7)


@pytest.mark.parametrize(
    "arguments",
    [
        '{"zone": ',
        "[]",
        '{"n": NaN}',
        '{"n": 1%s}' % ("0" * 400),
        '{"text": "\\ud800"}',
        '{"n": %s}' % ("[" * 32 + "]" * 32),
    ],
    ids=["cut", "list", "nan", "huge", "half a character", "deep"],
)
async def test_arguments_that_are_no_object_are_an_invalid_answer(
    served: Served, fake: FakeProvider, arguments: str
) -> None:
    fake.push(Reply(tool_calls=(("clock", arguments),)))
    async with refused(grpc.StatusCode.UNAVAILABLE, "PROVIDER_ANSWER_INVALID"):
        await served.stub.Complete(complete("time?"))


async def test_stream_brings_words_then_the_completion(served: Served, fake: FakeProvider) -> None:
    fake.push(Reply("one two three"))
    events = [event async for event in served.stub.StreamComplete(stream("count"))]
    assert [event.text_delta for event in events[:-1]] == ["one ", "two ", "three"]
    assert events[-1].completion.text == "one two three"
    assert events[-1].completion.cost_nanos > 0
    assert [call.reason for call in served.recorded] == [""]


async def test_a_cut_stream_is_an_error(served: Served, fake: FakeProvider) -> None:
    fake.push(Fault(FaultKind.CUT, after_chunks=3))
    seen = []
    async with refused(grpc.StatusCode.UNAVAILABLE, "PROVIDER_ANSWER_INVALID"):
        async for event in served.stub.StreamComplete(stream("a b c d")):
            seen.append(event.text_delta)  # noqa: PERF401 - what came before the cut must be kept
    # A reset may overtake words that nobody had read yet; what came is kept, and nothing is made up.
    assert seen == ["echo: ", "a "][: len(seen)]
    assert [call.reason for call in served.recorded] == ["PROVIDER_ANSWER_INVALID"]


async def test_canceling_a_stream_closes_the_providers_connection(served: Served, fake: FakeProvider) -> None:
    fake.push(Fault(FaultKind.STALL_MIDWAY, after_chunks=3))
    call = served.stub.StreamComplete(stream("a b c d"))
    await call.read()
    call.cancel()
    [asked] = await fake.ledger.until(1, ended=True)
    assert asked.outcome == "client_gone"
    await asyncio.wait_for(served.recording.wait(), 60)
    assert served.recorded[0].reason == "CANCELED"


async def test_a_deadline_reaches_the_provider(served: Served, fake: FakeProvider) -> None:
    fake.push(Fault(FaultKind.STALL))
    async with asyncio.timeout(60):
        # On a busy machine it may run out before anybody is asked.
        while not fake.ledger.asked:
            async with refused(grpc.StatusCode.DEADLINE_EXCEEDED, ""):
                await served.stub.Complete(complete("hello"), timeout=2)
    [asked] = await fake.ledger.until(1, ended=True)
    assert asked.outcome == "client_gone"


REFUSALS = [
    (Fault(FaultKind.KEY_REFUSED), grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_CREDENTIAL_REFUSED"),
    (Fault(FaultKind.RATE_LIMITED, seconds=9), grpc.StatusCode.RESOURCE_EXHAUSTED, "PROVIDER_RATE_LIMITED"),
    (Fault(FaultKind.SERVER_ERROR), grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE"),
    (Fault(FaultKind.CONTEXT_TOO_LONG), grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_TOO_LONG"),
    (Fault(FaultKind.MODEL_UNKNOWN), grpc.StatusCode.INVALID_ARGUMENT, "MODEL_NOT_FOUND"),
    (Fault(FaultKind.SERVER_ERROR, status=400), grpc.StatusCode.INVALID_ARGUMENT, "PROVIDER_REQUEST_REFUSED"),
]


@pytest.mark.parametrize(("fault", "code", "reason"), REFUSALS, ids=[reason for *_, reason in REFUSALS])
async def test_refusals_have_their_status(
    served: Served, fake: FakeProvider, fault: Fault, code: grpc.StatusCode, reason: str
) -> None:
    fake.push(Script(fault, times=None))
    async with refused(code, reason) as refusal:
        await served.stub.Complete(complete("hello"))
    assert refusal.domain == "minion.gateway"
    if reason == "PROVIDER_RATE_LIMITED":
        assert refusal.retry_after_seconds == 9
    if code is grpc.StatusCode.UNAVAILABLE:
        assert refusal.retry_after_seconds == 1
    async with refused(code, reason):
        [event async for event in served.stub.StreamComplete(stream("hello"))]
    async with refused(code, reason):
        await served.stub.Embed(service_pb.EmbedRequest(model="openai/text-embedding-3-small", texts=["hello"]))
    assert [call.reason for call in served.recorded] == [reason] * 3


async def test_all_faults_of_a_request_are_told_at_once(served: Served, fake: FakeProvider) -> None:
    message = pb.ChatMessage(
        role=pb.CHAT_ROLE_USER, tool_call_id="x" * 129, tool_calls=[pb.ChatToolCall(name="y" * 65)]
    )
    request = service_pb.CompleteRequest(
        model="m" * 201,
        messages=[message, pb.ChatMessage(role=pb.CHAT_ROLE_TOOL), pb.ChatMessage()],
        tools=[pb.ChatTool(name="z" * 65, description="d" * 4_001), pb.ChatTool()],
        temperature=2.5,
        max_output_tokens=-1,
    )
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await served.stub.Complete(request)
    assert set(refusal.violations) == {
        "model",
        "messages[0].tool_calls",
        "messages[0].tool_call_id",
        "messages[0].tool_calls[0].tool_call_id",
        "messages[0].tool_calls[0].name",
        "messages[1].tool_call_id",
        "messages[2].role",
        "tools[0].name",
        "tools[0].description",
        "tools[1].name",
        "temperature",
        "max_output_tokens",
    }
    assert fake.ledger.asked == []


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (service_pb.CompleteRequest(), "messages"),
        (complete("", messages=[pb.ChatMessage(role=pb.CHAT_ROLE_USER, text="x")] * 1_001), "messages"),
        (complete("x" * (1024 * 1024)), "messages"),
        (complete("x", tools=[pb.ChatTool(name="t")] * 129), "tools"),
        (
            complete("x", tools=[pb.ChatTool(name="t", input_schema=to_struct({"x": "x" * 65_536}))]),
            "tools[0].input_schema",
        ),
        (complete("x", temperature=math.nan), "temperature"),
        (complete("x", max_output_tokens=200_001), "max_output_tokens"),
    ],
)
async def test_the_limits_of_complete(served: Served, request_: service_pb.CompleteRequest, field: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await served.stub.Complete(request_)
    assert set(refusal.violations) == {field}
    copied = service_pb.StreamCompleteRequest.FromString(request_.SerializeToString())
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
        [event async for event in served.stub.StreamComplete(copied)]


async def test_a_paid_answer_is_given_though_its_audit_fails(
    served: Served, fake: FakeProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.push(Reply("Paris.", input_tokens=1_000, output_tokens=500), Reply("Paris."))
    served.refusing.append(Unavailable("The database is away.", reason="DATABASE_UNAVAILABLE"))
    assert (await served.stub.Complete(complete("The capital of France?"))).completion.text == "Paris."
    events = [event async for event in served.stub.StreamComplete(stream("The capital of France?"))]
    assert events[-1].completion.text == "Paris."
    assert (await served.stub.Embed(service_pb.EmbedRequest(texts=["one text"]))).dimension == 384
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "MODEL_NOT_FOUND"):
        await served.stub.Complete(complete("hello", model="nobody/gpt"))
    assert "inference_unaudited_total 4.0" in served.metrics()
    logged = capsys.readouterr().out
    assert logged.count("a call of a model is not audited") == 4
    assert "input_tokens=1000" in logged
    assert "output_tokens=500" in logged


async def test_large_questions_and_answers_are_converted_off_the_loop(served: Served, fake: FakeProvider) -> None:
    dense = {"n": [1] * 30_000}
    tools = [pb.ChatTool(name=f"t{number}") for number in range(6)]
    for tool in tools:
        tool.input_schema.update(dense)
    fake.push(Reply(tool_calls=tuple((f"t{number}", orjson.dumps(dense).decode()) for number in range(4))))
    assert await longest_stall(lambda: served.stub.Complete(complete("count", tools=tools))) < 0.4


async def test_embed_uses_the_local_model_by_default(served: Served, fake: FakeProvider) -> None:
    response = await served.stub.Embed(service_pb.EmbedRequest(texts=["one text", "another"]))
    assert (response.model, response.dimension, len(response.embeddings)) == ("local/all-minilm-l6-v2", 384, 2)
    assert math.hypot(*response.embeddings[0].values) == pytest.approx(1)
    assert response.usage.input_tokens == 7
    assert response.HasField("cost_nanos")
    assert response.cost_nanos == 0
    assert fake.ledger.asked == []
    assert served.recorded[0].operation is Operation.EMBEDDINGS


async def test_embed_by_the_provider(served: Served, fake: FakeProvider) -> None:
    texts = ["one text", "another"]
    request = service_pb.EmbedRequest(model="openai/text-embedding-3-small", texts=texts)
    response = await served.stub.Embed(request)
    assert (response.dimension, len(response.embeddings[1].values)) == (1_536, 1_536)
    assert math.hypot(*response.embeddings[1].values) == pytest.approx(1, abs=1e-4)
    assert response.embeddings[0] != response.embeddings[1]
    assert response == await served.stub.Embed(request)
    assert fake.ledger.asked[0].body["input"] == texts


@pytest.mark.parametrize(
    ("texts", "field"),
    [
        ([], "texts"),
        (["x"] * 101, "texts"),
        ([""], "texts[0]"),
        (["x" * 32_769], "texts[0]"),
        (["é" * 32_768] * 17, "texts"),
    ],
    ids=["none", "many", "empty", "long", "together"],
)
async def test_the_limits_of_embed(served: Served, texts: list[str], field: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await served.stub.Embed(service_pb.EmbedRequest(texts=texts))
    assert set(refusal.violations) == {field}


@pytest.mark.parametrize("model", ["nobody/gpt", "local/other", "local/all-minilm-l6-v2", "openai/", "local/"])
async def test_an_unknown_chat_model_is_refused(served: Served, fake: FakeProvider, model: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "MODEL_NOT_FOUND") as refusal:
        await served.stub.Complete(complete("hello", model=model))
    assert refusal.metadata["model"] == model
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "MODEL_NOT_FOUND"):
        [event async for event in served.stub.StreamComplete(stream("hello", model=model))]
    assert fake.ledger.asked == []


@pytest.mark.parametrize("model", ["nobody/gpt", "local/stand-in", "openai/text-embedding-nobody-has"])
async def test_an_unknown_embedding_model_is_refused(served: Served, model: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "MODEL_NOT_FOUND"):
        await served.stub.Embed(service_pb.EmbedRequest(model=model, texts=["hello"]))


async def test_names_route_by_their_prefix(served: Served, fake: FakeProvider) -> None:
    asked = ("openai/gpt-4o", "gpt-4o", "openai/meta-llama/Llama-3", "local/stand-in")
    models = [(await served.stub.Complete(complete("hello", model=model))).completion.model for model in asked]
    assert models == ["openai/gpt-4o", "openai/gpt-4o", "openai/meta-llama/Llama-3", "local/stand-in"]
    assert [asked.model for asked in fake.ledger.asked] == ["gpt-4o", "gpt-4o", "meta-llama/Llama-3"]


async def test_an_unknown_price_is_left_unset(served: Served) -> None:
    completion = (await served.stub.Complete(complete("hello", model="openai/of-our-own"))).completion
    assert not completion.HasField("cost_nanos")


async def test_models_are_listed_by_page_and_kind(served: Served) -> None:
    everything = (await served.stub.ListModels(service_pb.ListModelsRequest())).models
    assert [model.name for model in everything] == [
        "local/all-minilm-l6-v2",
        "local/stand-in",
        "openai/gpt-4o",
        "openai/gpt-4o-mini",
        "openai/text-embedding-3-small",
    ]
    assert [model.name for model in everything if model.default_model] == [
        "local/all-minilm-l6-v2",
        "openai/gpt-4o-mini",
    ]
    assert [model.name for model in everything if model.stand_in] == ["local/stand-in"]
    assert {model.name: model.dimension for model in everything if model.dimension} == {
        "local/all-minilm-l6-v2": 384,
        "openai/text-embedding-3-small": 1_536,
    }
    request = service_pb.ListModelsRequest(kind=pb.MODEL_KIND_CHAT, page_size=2)
    first = await served.stub.ListModels(request)
    request.page_token = first.next_page_token
    second = await served.stub.ListModels(request)
    names = [model.name for page in (first, second) for model in page.models]
    assert names == ["local/stand-in", "openai/gpt-4o", "openai/gpt-4o-mini"]
    assert second.next_page_token == ""
    request.kind = pb.MODEL_KIND_EMBEDDING
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
        await served.stub.ListModels(request)
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
        await served.stub.ListModels(service_pb.ListModelsRequest(page_token="nonsense"))
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await served.stub.ListModels(service_pb.ListModelsRequest(page_size=-1, kind=99))  # type: ignore[arg-type]
    assert set(refusal.violations) == {"page_size", "kind"}


async def test_with_no_key_the_stand_in_answers(cache: Path) -> None:
    async with serving(cache) as served:
        completion = (await served.stub.Complete(complete("Hello"))).completion
        assert completion.model == "local/stand-in"
        assert "stand-in" in completion.text
        assert completion.cost_nanos == 0
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "MODEL_NOT_FOUND"):
            await served.stub.Complete(complete("Hello", model="openai/gpt-4o-mini"))


async def test_a_call_leaves_a_span_and_a_latency(served: Served, fake: FakeProvider) -> None:
    fake.push(Reply("Paris.", input_tokens=12, output_tokens=3), Fault(FaultKind.KEY_REFUSED))
    await served.stub.Complete(complete("a secret question", temperature=0.5))
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_CREDENTIAL_REFUSED"):
        await served.stub.Complete(complete("another"))
    whole, failed = served.spans("chat gpt-4o-mini")
    assert whole.attributes is not None
    assert whole.attributes["gen_ai.usage.input_tokens"] == 12
    assert whole.attributes["gen_ai.usage.output_tokens"] == 3
    assert whole.attributes["gen_ai.provider.name"] == "openai"
    assert whole.attributes["minion.cost.nanos"] == 3_600
    assert "secret" not in whole.to_json()
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "PROVIDER_CREDENTIAL_REFUSED"
    served_by = [span for span in served.finished.get_finished_spans() if span.kind is SpanKind.SERVER]
    assert whole.parent is not None
    assert whole.parent.span_id in {span.context.span_id for span in served_by if span.context}
    labels = 'llm_latency_seconds_count{model="openai/gpt-4o-mini",operation="chat",outcome="%s",provider="openai"} 1.0'
    assert labels % "ok" in served.metrics()
    assert labels % "error" in served.metrics()


async def test_names_that_callers_invent_make_no_series(served: Served, fake: FakeProvider) -> None:
    fake.push(Script(Fault(FaultKind.MODEL_UNKNOWN), times=None))
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "MODEL_NOT_FOUND"):
        await served.stub.Complete(complete("hello", model="openai/invented"))
    assert "invented" not in served.metrics()
    assert 'model="other"' in served.metrics()


async def test_the_worst_case_covers_the_cost(served: Served, fake: FakeProvider) -> None:
    request = CompletionRequest("", (ChatMessage(Role.USER, "hello " * 50),), maximum_output_tokens=100)
    worst = served.inference.worst_case_nanos(request)
    completion = await served.inference.complete(request)
    assert completion.cost_nanos is not None
    assert worst is not None
    assert 0 < completion.cost_nanos <= worst
