"""The local stand-in for a chat model: it follows rules and understands nothing, and says so in every answer.

It lets the whole path be seen with no provider's key: it answers from the memories it is given, calls tools by rule and
answers from their results. Asked for memories by the extraction schema, it draws them by rule. The same request always
gets the same answer.
"""

import hashlib
import json
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import orjson

from minion_gateway.inference import memories_section, summary_section
from minion_gateway.inference.domain import (
    ChatMessage,
    Completion,
    CompletionRequest,
    Delta,
    Finished,
    FinishReason,
    Role,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from minion_gateway.inference.estimator import estimate_request, estimate_text
from minion_gateway.inference.providers import stand_in_extraction, stand_in_summaries
from minion_gateway.inference.providers.stand_in_rules import asks_of_the_user, instance, is_kind, plan, told

_NAME = "stand-in"
_CONFESSION = "I am Minion's local stand-in, not a language model."
_WORD = re.compile(r"\S+\s*")
_COMMON_WORDS = """
a an and are as at be by did do does for from have how i in is it me my of on or that the to was were what when where
which who why will with you your know remember about
"""
_TOO_COMMON = frozenset(_COMMON_WORDS.split())


class StandInProvider:
    """The `Provider` named `local`; its one model is `stand-in`."""

    name = "local"

    async def start(self) -> None:
        """Needs nothing."""

    async def complete(self, request: CompletionRequest) -> Completion:
        """Returns the answer that the rules give."""
        return _answer(request)

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """Yields the same answer word by word, each tool call in one piece."""
        completion = _answer(request)
        for word in _WORD.findall(completion.text):
            yield TextDelta(word)
        for index, call in enumerate(completion.tool_calls):
            yield ToolCallDelta(index, call.id, call.name, call.arguments)
        yield Finished(completion)

    async def close(self) -> None:
        """Holds nothing."""


def _answer(request: CompletionRequest) -> Completion:
    asked = max((index for index, each in enumerate(request.messages) if each.role is Role.USER), default=-1)
    question = request.messages[asked].text if asked >= 0 else ""
    since = request.messages[asked + 1 :]
    memories = [
        memory for each in request.messages if each.role is Role.SYSTEM for memory in memories_section.parse(each.text)
    ]
    results = [each for each in since if each.role is Role.TOOL]
    calls: tuple[ToolCall, ...] = ()
    if not results:
        planned = plan(question, request.tools, has_memories=bool(memories))
        calls = tuple(
            ToolCall(_call_id(request, index), call.tool, orjson.dumps(call.arguments).decode())
            for index, call in enumerate(planned)
        )
    summarized = summary_section.parse(request.messages)
    if summarized is not None:
        text = stand_in_summaries.extract(summarized, request.maximum_output_tokens)
    else:
        text = "" if calls else _text(request, question, since, results, memories)
    text, cut = _limited(text, request.maximum_output_tokens)
    written = estimate_text(text) + sum(estimate_text(call.name + call.arguments) for call in calls)
    return Completion(
        text=text,
        tool_calls=calls,
        finish_reason=FinishReason.TOOL_CALLS if calls else FinishReason.LENGTH if cut else FinishReason.STOP,
        usage=Usage(input_tokens=estimate_request(request), output_tokens=written, estimated=True),
        model=f"local/{request.model}",
        provider="local",
        provider_model=_NAME,
    )


def _text(
    request: CompletionRequest,
    question: str,
    since: Sequence[ChatMessage],
    results: Sequence[ChatMessage],
    memories: Sequence[str],
) -> str:
    if request.response_schema is not None:
        if request.response_schema.get("title") == stand_in_extraction.TITLE:
            return stand_in_extraction.extract(request.messages)
        return orjson.dumps(instance(request.response_schema, f"{_CONFESSION} You said: {question}")).decode()
    sentences: list[str] = []
    if results:
        names = {call.id: call.name for each in since for call in each.tool_calls}
        sentences += [_of_result(names.get(result.tool_call_id, ""), result.text) for result in results]
    if memories:
        sentences.append(_of_memories(question, memories))
    if not any(sentences):
        if fact := told(question):
            sentences.append(f"You tell me: {fact}. I was given no tool to remember it with.")
        elif asks_of_the_user(question):
            sentences.append("I was given no memory of you.")
        else:
            sentences.append(f"You said: {question}" if question else "There is nothing to answer.")
    return " ".join([_CONFESSION, *(sentence for sentence in sentences if sentence)])


def _of_result(tool: str, text: str) -> str:
    try:
        value: Any = json.loads(text)
    except ValueError:
        value = text
    if isinstance(value, dict) and value.get("error"):
        return f"The tool {tool} failed: {_said(value['error'])}."
    if is_kind(tool, "remember"):
        return "I have kept that, and will know it next time."
    said = _said(value)
    if is_kind(tool, "recall"):
        return f"I remember: {said}." if said else "I remember nothing of that."
    return f"The tool {tool or '(unnamed)'} says: {said}."


def _said(value: Any) -> str:
    """A result in words: strings as they are, objects by their fields, lists by their items."""
    match value:
        case None:
            return ""
        case str():
            return value.rstrip(".")
        case bool():
            return "yes" if value else "no"
        case list():
            return "; ".join(_said(item) for item in value)
        case {"content": str(content)}:
            return content.rstrip(".")
        case dict() if len(value) == 1:
            return _said(next(iter(value.values())))
        case dict():
            return ", ".join(f"{name} {_said(inner)}" for name, inner in value.items())
        case _:
            return str(value)


def _of_memories(question: str, memories: Sequence[str]) -> str:
    """The memories that share words with the question; all, where it asks in general; none, where nothing fits."""
    words = _words(question)
    fitting = [memory for memory in memories if words & _words(memory)]
    if not fitting and asks_of_the_user(question):
        fitting = list(memories)
    return f"I remember: {'; '.join(memory.rstrip('.') for memory in fitting)}." if fitting else ""


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in _TOO_COMMON}


def _limited(text: str, maximum_tokens: int | None) -> tuple[str, bool]:
    """Cuts the text after the last word that the limit has room for."""
    if maximum_tokens is None or estimate_text(text) <= maximum_tokens:
        return text, False
    kept = ""
    for word in _WORD.findall(text):
        if estimate_text(kept + word) > maximum_tokens:
            break
        kept += word
    return kept.rstrip(), True


def _call_id(request: CompletionRequest, index: int) -> str:
    """A name that differs for each call of a conversation and is the same when the request is repeated."""
    last = request.messages[-1].text if request.messages else ""
    digest = hashlib.sha256(f"{len(request.messages)}:{index}:{last}".encode()).hexdigest()
    return f"call_{digest[:24]}"
