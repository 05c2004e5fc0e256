"""The local stand-in: its rules, and that it looks like any provider."""

import orjson
import pytest
from minion_gateway.inference import memories_section
from minion_gateway.inference.domain import (
    ChatMessage,
    Completion,
    CompletionRequest,
    Finished,
    FinishReason,
    Role,
    TextDelta,
    ToolCall,
    ToolSpec,
)
from minion_gateway.inference.providers.local import StandInProvider
from minion_gateway.inference.providers.stand_in_rules import expression, told

from tests.minion_gateway.inference.provider_stage import drained


def tool(name: str, *required: str, **properties: object) -> ToolSpec:
    fields = {**{field: {"type": "string"} for field in required}, **properties}
    return ToolSpec(name, f"The {name}.", {"type": "object", "properties": fields, "required": list(required)})


TOOLS = (
    tool("clock", timezone={"type": "string"}),
    tool("calculator", "expression"),
    tool("remember", "content"),
    tool("recall", "query"),
    tool("workspace", "operation", operation={"enum": ["get", "set", "list"]}, key={"type": "string"}, value={}),
)


async def answer(text: str, *, system: str = "", tools: tuple[ToolSpec, ...] = TOOLS, **values: object) -> Completion:
    messages = (*((ChatMessage(Role.SYSTEM, system),) if system else ()), ChatMessage(Role.USER, text))
    return await StandInProvider().complete(CompletionRequest("stand-in", messages, tools, **values))  # type: ignore[arg-type]


async def after(text: str, call: ToolCall, result: str) -> str:
    messages = (
        ChatMessage(Role.USER, text),
        ChatMessage(Role.ASSISTANT, "", (call,)),
        ChatMessage(Role.TOOL, result, tool_call_id=call.id),
    )
    return (await StandInProvider().complete(CompletionRequest("stand-in", messages, TOOLS))).text


CALLS = [
    ("What time is it?", "clock", {}),
    ("what's 12 * (3 + 4)?", "calculator", {"expression": "12 * (3 + 4)"}),
    ("What is 17.5 plus 4?", "calculator", {"expression": "17.5 + 4"}),
    ("Remember that my train leaves at seven.", "remember", {"content": "my train leaves at seven"}),
    ("My name is Ada", "remember", {"content": "My name is Ada"}),
    ("Hello! I like green tea.", "remember", {"content": "I like green tea"}),
    ("My mail is ada@example.com. Bye!", "remember", {"content": "My mail is ada@example.com"}),
    ("What do you know about me?", "recall", {"query": "What do you know about me?"}),
    ("What is my name?", "recall", {"query": "What is my name?"}),
    ("Who am I?", "recall", {"query": "Who am I?"}),
    ("Set plan = travel in the workspace", "workspace", {"operation": "set", "key": "plan", "value": "travel"}),
    ("Show plan from the workspace", "workspace", {"operation": "get", "key": "plan"}),
    ("List my workspace", "workspace", {"operation": "list"}),
]


@pytest.mark.parametrize(("text", "name", "arguments"), CALLS, ids=[text for text, *_ in CALLS])
async def test_words_call_their_tool(text: str, name: str, arguments: dict[str, str]) -> None:
    completion = await answer(text)
    assert [(call.name, call.decoded()) for call in completion.tool_calls] == [(name, arguments)]
    assert completion.finish_reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize("text", ["Hello there", "On 2024-05-01 it rained", "Tell me a story", "", "Do cats purr?"])
async def test_other_words_call_none(text: str) -> None:
    completion = await answer(text)
    assert completion.tool_calls == ()
    assert completion.finish_reason is FinishReason.STOP


async def test_a_message_may_call_several() -> None:
    completion = await answer("My name is Ada. What time is it, and what is 2 + 2")
    assert [call.name for call in completion.tool_calls] == ["clock", "calculator", "remember"]
    assert len({call.id for call in completion.tool_calls}) == 3


async def test_only_tools_that_are_given_are_called() -> None:
    completion = await answer("What time is it?", tools=())
    assert completion.tool_calls == ()


async def test_every_answer_says_what_it_is() -> None:
    for text in ("Hello", "What is my name?"):
        assert "stand-in, not a language model" in (await answer(text, tools=())).text


async def test_it_answers_from_what_it_is_reminded_of() -> None:
    system = "Be kind.\n\n" + memories_section.render(["The user's name is Ada.", "Likes green tea"])
    assert memories_section.parse(system) == ["The user's name is Ada.", "Likes green tea"]
    completion = await answer("What is my name?", system=system)
    assert completion.tool_calls == ()
    assert "Ada" in completion.text
    assert "tea" not in completion.text
    assert "green tea" in (await answer("Who am I?", system=system)).text


async def test_it_answers_from_results() -> None:
    call = ToolCall("call_1", "calculator", "{}")
    assert "84" in await after("what is 12 * 7", call, '{"value": 84}')
    assert "84" in await after("what is 12 * 7", call, "84")
    assert "division by zero" in await after("what is 1 / 0", call, '{"error": "division by zero"}')
    recall = ToolCall("call_1", "recall", "{}")
    found = orjson.dumps({"memories": [{"content": "The user's name is Ada.", "score": 0.9}]}).decode()
    assert "The user's name is Ada" in await after("What is my name?", recall, found)
    assert "I remember nothing" in await after("What is my name?", recall, '{"memories": []}')
    assert "I have kept that" in await after("I like tea", ToolCall("call_1", "remember", "{}"), '{"memory_id": "x"}')


async def test_it_streams_word_by_word_what_it_says_at_once() -> None:
    request = CompletionRequest("stand-in", (ChatMessage(Role.USER, "Hello, what time is it?"),))
    deltas = await drained(StandInProvider().stream(request))
    whole = await StandInProvider().complete(request)
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == whole.text
    assert len(deltas) > 5
    assert deltas[-1] == Finished(whole)
    assert whole.usage.estimated
    assert whole.usage.output_tokens > 0


async def test_it_keeps_to_the_output_limit() -> None:
    completion = await answer("Hello " * 50, tools=(), maximum_output_tokens=10)
    assert completion.finish_reason is FinishReason.LENGTH
    assert 0 < completion.usage.output_tokens <= 10


async def test_it_answers_by_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string"}, "count": {"type": "integer", "minimum": 1}, "rest": {}},
        "required": ["answer", "count"],
    }
    completion = await answer("Hello", tools=(), response_schema=schema)
    value = orjson.loads(completion.text)
    assert value["count"] == 1
    assert "stand-in" in value["answer"]
    assert set(value) == {"answer", "count"}


def test_arithmetic_is_found_and_dates_are_not() -> None:
    assert expression("3 x 4") == "3 * 4"
    assert expression("2^10 is?") == "2**10"
    assert expression("on 2024-05-01") is None
    assert expression("room 12") is None


def test_questions_tell_nothing() -> None:
    assert told("Do I like tea?") is None
    assert told("Can you remember that I like tea?") == "I like tea"
