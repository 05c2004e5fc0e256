"""What OpenAI, Anthropic and Gemini accept as a transcript: their rules, each with where it stands.

A context goes through the mapping that any client of ours has to make, which decides nothing: each role and part
becomes the provider's own, consecutive turns of one role become one where the provider wants them so, instructions go
where it keeps them, and a context that ends with the assistant is followed by the next user's words. Each validator
then lists the rules that the request breaks; it knows nothing of how contexts are made.

Sources: OpenAI, API reference, "Create chat completion" (platform.openai.com/docs/api-reference/chat/create) and the
guide "Function calling"; Anthropic, "Messages" (docs.anthropic.com/en/api/messages) and "Tool use"
(docs.anthropic.com/en/docs/agents-and-tools/tool-use/implement-tool-use); Gemini, "generateContent"
(ai.google.dev/api/generate-content, ai.google.dev/api/caching#Content) and "Function calling"
(ai.google.dev/gemini-api/docs/function-calling). Where a rule stands in no page but in the words of the refusal, the
refusal is quoted.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from minion_session.messages.domain import (
    MediaPart,
    Message,
    Role,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)

Request = dict[str, Any]
_NEXT_WORDS = "And then?"


def _ends_with_assistant(context: Sequence[Message]) -> bool:
    return not context or context[-1].role in (Role.ASSISTANT, Role.SYSTEM)


def _text(output: Any) -> str:
    return output if isinstance(output, str) else json.dumps(output)


def _place(media: MediaPart) -> str:
    return media.uri or f"https://blobs.example/{media.blob_id}"


# OpenAI


def openai_request(context: Sequence[Message]) -> list[Request]:
    """Maps a context to `messages` of a chat completion."""
    messages: list[Request] = []
    for message in context:
        match message.role:
            case Role.TOOL:
                messages += [
                    {"role": "tool", "tool_call_id": part.tool_call_id, "content": _text(part.output)}
                    for part in message.parts
                    if isinstance(part, ToolResultPart)
                ]
            case Role.ASSISTANT:
                calls = [
                    {
                        "id": part.tool_call_id,
                        "type": "function",
                        "function": {"name": part.name, "arguments": json.dumps(part.arguments)},
                    }
                    for part in message.parts
                    if isinstance(part, ToolCallPart)
                ]
                content = [_openai_part(part) for part in message.parts if not isinstance(part, ToolCallPart)]
                messages.append(
                    {"role": "assistant", "content": content or None, **({"tool_calls": calls} if calls else {})}
                )
            case role:
                messages.append({"role": role.value, "content": [_openai_part(part) for part in message.parts]})
    if _ends_with_assistant(context):
        messages.append({"role": "user", "content": [{"type": "text", "text": _NEXT_WORDS}]})
    return messages


def _openai_part(part: Any) -> Request:
    match part:
        case TextPart(text):
            return {"type": "text", "text": text}
        case MediaPart():
            return {"type": "image_url", "image_url": {"url": _place(part)}}
        case ThinkingPart(text, _):
            return {"type": "thinking", "text": text}
        case _:
            return {"type": type(part).__name__}


def openai_faults(messages: Sequence[Request]) -> Iterator[str]:  # noqa: PLR0912 - a rule after the other
    """Lists what OpenAI refuses."""
    # "messages: a list of messages comprising the conversation so far", required; an empty array is refused: "[] is too
    # short - 'messages'".
    if not messages:
        yield "no messages"
    waiting: list[str] = []
    for message in messages:
        role, content, calls = message["role"], message.get("content"), message.get("tool_calls")
        if role == "tool":
            # "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
            if message["tool_call_id"] not in waiting:
                yield f"tool message {message['tool_call_id']} answers nothing"
            else:
                waiting.remove(message["tool_call_id"])
            # "content: string or array, required. The contents of the tool message."
            if not isinstance(content, str):
                yield "tool message without content"
            continue
        # "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'."
        if waiting:
            yield f"calls {waiting} have no tool message"
            waiting = []
        # "content: required unless tool_calls or function_call is specified."
        if not content and not calls:
            yield f"{role} message is empty"
        # Content parts: user text, image_url, input_audio, file; assistant text, refusal; system text.
        kinds = {"user": {"text", "image_url"}}.get(role, {"text"})
        for part in content or []:
            if part["type"] not in kinds:
                yield f"{role} message with a part {part['type']}"
            # "Invalid 'messages[0].content[0].text': empty string."
            if part["type"] == "text" and not part["text"]:
                yield f"{role} message with an empty text"
        if calls is None:
            continue
        # "[] is too short - 'messages.1.tool_calls'", and of at most 128.
        if not 1 <= len(calls) <= 128:
            yield "tool_calls is empty or too long"
        if role != "assistant":
            yield f"{role} message with tool_calls"
        for call in calls:
            # "Invalid 'messages[1].tool_calls[0].id': string too long. Expected a string with maximum length 40".
            if not 1 <= len(call["id"]) <= 40:
                yield f"tool call id {call['id']!r} is too long"
            # "name: must be a-z, A-Z, 0-9, or contain underscores and dashes, with a maximum length of 64."
            if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", call["function"]["name"]):
                yield f"function name {call['function']['name']!r}"
            # "arguments: the arguments to call the function with, as generated by the model in JSON format."
            if not isinstance(json.loads(call["function"]["arguments"]), dict):
                yield "arguments are no object"
            waiting.append(call["id"])
        # "Duplicate value for 'tool_call_id'".
        if len(set(waiting)) < len(waiting):
            yield "two calls of a message have one id"
    if waiting:
        yield f"calls {waiting} have no tool message"


# Anthropic


def anthropic_request(context: Sequence[Message]) -> Request:
    """Maps a context to a request of Messages."""
    turns: list[tuple[str, list[Request]]] = []
    system: list[Request] = []
    for message in context:
        if message.role is Role.SYSTEM:
            system += [{"type": "text", "text": part.text} for part in message.parts if isinstance(part, TextPart)]
            continue
        role = "assistant" if message.role is Role.ASSISTANT else "user"
        turns.append((role, [_anthropic_block(part) for part in message.parts]))
    # "Consecutive user or assistant turns in your request will be combined into a single turn."
    messages = [
        {"role": role, "content": [block for _, blocks in same for block in blocks]}
        for role, same in groupby(turns, key=lambda turn: turn[0])
    ]
    if not messages or messages[-1]["role"] == "assistant":
        messages.append({"role": "user", "content": [{"type": "text", "text": _NEXT_WORDS}]})
    return {"system": system, "messages": messages}


def _anthropic_block(part: Any) -> Request:
    match part:
        case TextPart(text):
            return {"type": "text", "text": text}
        case MediaPart():
            return {"type": "image", "source": {"type": "url", "url": _place(part)}}
        case ToolCallPart(tool_call_id, name, arguments):
            return {"type": "tool_use", "id": tool_call_id, "name": name, "input": arguments}
        case ToolResultPart(tool_call_id, _, output, is_error, _):
            return {
                "type": "tool_result",
                "tool_use_id": tool_call_id,
                "content": _text(output),
                "is_error": is_error,
            }
        case ThinkingPart(text, signature):
            return {"type": "thinking", "thinking": text, "signature": signature}
        case _:
            return {"type": type(part).__name__}


def anthropic_faults(request: Request) -> Iterator[str]:  # noqa: PLR0912 - a rule after the other
    """Lists what Anthropic refuses."""
    messages: list[Request] = request["messages"]
    # "messages: at least one message is required"; "first message must use the \"user\" role".
    if not messages or messages[0]["role"] != "user":
        yield "the first message is no user's"
    # "This model does not support assistant message prefill. The conversation must end with a user message."
    if messages and messages[-1]["role"] != "user":
        yield "the last message is no user's"
    seen: set[str] = set()
    called: list[str] = []
    for message in messages:
        blocks: list[Request] = message["content"]
        # "messages: all messages must have non-empty content except for the optional final assistant message."
        if not blocks:
            yield "a message is empty"
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        # "`tool_use` ids were found without `tool_result` blocks immediately after: …. Each `tool_use` block must have
        # a corresponding `tool_result` block in the next message."
        if set(called) - set(results):
            yield f"calls {set(called) - set(results)} have no result in the next message"
        # "unexpected `tool_use_id` found in `tool_result` blocks: …. Each `tool_result` block must have a corresponding
        # `tool_use` block in the previous message."
        if set(results) - set(called):
            yield f"results {set(results) - set(called)} have no call in the message before"
        # "each tool_use must have a single result. Found multiple `tool_result` blocks with id".
        if len(set(results)) < len(results):
            yield "a call has two results"
        # "In the user message containing tool results, the tool_result blocks must come first in the content array."
        kinds = [block["type"] for block in blocks]
        if results and kinds[: len(results)] != ["tool_result"] * len(results):
            yield "tool results don't come first"
        # Blocks of an assistant: text, thinking, tool_use; of a user: text, image, document, tool_result.
        allowed = {"user": {"text", "image", "tool_result"}, "assistant": {"text", "thinking", "tool_use"}}
        for block in blocks:
            if block["type"] not in allowed[message["role"]]:
                yield f"{message['role']} message with a block {block['type']}"
            # "text content blocks must be non-empty", "text content blocks must contain non-whitespace text".
            if block["type"] == "text" and not block["text"].strip():
                yield "a blank text"
            # The signature of thinking is checked, and thinking of another provider has none: "Invalid `signature`".
            if block["type"] == "thinking":
                yield "thinking of who knows whom"
        called = [block["id"] for block in blocks if block["type"] == "tool_use"]
        for block in blocks:
            if block["type"] != "tool_use":
                continue
            # "tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'".
            if not re.fullmatch(r"[a-zA-Z0-9_-]+", block["id"]):
                yield f"tool_use id {block['id']!r}"
            # "tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'" (64 in older models).
            if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", block["name"]):
                yield f"tool_use name {block['name']!r}"
            # "tool_use.input: Input should be a valid dictionary".
            if not isinstance(block["input"], dict):
                yield "input is no object"
            # "`tool_use` ids must be unique".
            if block["id"] in seen:
                yield f"tool_use id {block['id']!r} twice"
            seen.add(block["id"])
    if called:
        yield f"calls {called} have no result in the next message"
    # "system: text content blocks must be non-empty".
    if any(not block["text"].strip() for block in request["system"]):
        yield "a blank system text"


# Gemini


def gemini_request(context: Sequence[Message]) -> Request:
    """Maps a context to `contents` and `systemInstruction` of generateContent."""
    turns: list[tuple[tuple[str, bool], list[Request]]] = []
    system: list[Request] = []
    for message in context:
        if message.role is Role.SYSTEM:
            system += [{"text": part.text} for part in message.parts if isinstance(part, TextPart)]
            continue
        role = "model" if message.role is Role.ASSISTANT else "user"
        # A turn of function responses holds nothing else, so it isn't one with the user's words after it.
        turns.append(((role, message.role is Role.TOOL), [_gemini_part(part) for part in message.parts]))
    contents = [
        {"role": role, "parts": [part for _, parts in same for part in parts]}
        for (role, _), same in groupby(turns, key=lambda turn: turn[0])
    ]
    if not contents or contents[-1]["role"] == "model":
        contents.append({"role": "user", "parts": [{"text": _NEXT_WORDS}]})
    return {"systemInstruction": {"parts": system} if system else None, "contents": contents}


def _gemini_part(part: Any) -> Request:
    match part:
        case TextPart(text):
            return {"text": text}
        case MediaPart(media_type, _, _, _):
            return {"fileData": {"mimeType": media_type, "fileUri": _place(part)}}
        case ToolCallPart(tool_call_id, name, arguments):
            return {"functionCall": {"id": tool_call_id, "name": name, "args": arguments}}
        case ToolResultPart(tool_call_id, name, output, is_error, _):
            key = "error" if is_error else "output"
            return {"functionResponse": {"id": tool_call_id, "name": name, "response": {key: output}}}
        case ThinkingPart(text, _):
            return {"text": text, "thought": True}
        case _:
            return {}


def gemini_faults(request: Request) -> Iterator[str]:  # noqa: PLR0912 - a rule after the other
    """Lists what Gemini refuses."""
    contents: list[Request] = request["contents"]
    # "contents: required"; "GenerateContentRequest.contents: contents is not specified".
    if not contents:
        yield "no contents"
    # "Please ensure that multiturn requests alternate between user and model", "… end with a user role or a function
    # response"; a history that begins with the model's turn is refused the same way.
    if contents and contents[0]["role"] != "user":
        yield "the first content is no user's"
    if contents and contents[-1]["role"] != "user":
        yield "the last content is no user's"
    before: Request | None = None
    for content in contents:
        parts: list[Request] = content["parts"]
        # "GenerateContentRequest.contents[0].parts: contents.parts must not be empty."
        if not parts:
            yield "a content is empty"
        for part in parts:
            # "Unable to submit request because it must have a text parameter": a part has one of its fields set.
            if not part or ("text" in part and not part["text"].strip()):
                yield "a part is empty"
            # Thoughts are taken back with the signature of the model that had them alone.
            if part.get("thought"):
                yield "a thought of who knows whom"
        calls = [part["functionCall"] for part in parts if "functionCall" in part]
        responses = [part["functionResponse"] for part in parts if "functionResponse" in part]
        called = [part["functionCall"] for part in before["parts"] if "functionCall" in part] if before else []
        # "Please ensure that function call turn comes immediately after a user turn or after a function response turn."
        if calls and (content["role"] != "model" or before is None or before["role"] != "user"):
            yield "a function call turn doesn't come after a user's or a function response turn"
        # "Please ensure that function response turn comes immediately after a function call turn."
        if responses and not called:
            yield "a function response turn doesn't come after a function call turn"
        if called and not responses:
            yield "a function call turn has no function response turn after it"
        # "Please ensure that the number of function response parts is equal to the number of function call parts of the
        # function call turn."
        if called and responses and len(called) != len(responses):
            yield "as many responses as calls are wanted"
        # A function response turn holds nothing else.
        if responses and len(responses) != len(parts):
            yield "a function response turn holds more than responses"
        # "FunctionResponse.id: populated by the client to match the corresponding function call id"; else by name.
        answered = sorted((call["id"], call["name"]) for call in responses)
        if responses and answered != sorted((call["id"], call["name"]) for call in called):
            yield "a response matches no call"
        for call in calls:
            # "FunctionCall.name: must be a-z, A-Z, 0-9, or contain underscores and dashes, with a maximum length of
            # 64"; of a declaration: "must start with a letter or an underscore".
            if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}", call["name"]):
                yield f"function name {call['name']!r}"
            # "args: object (Struct format)".
            if not isinstance(call["args"], dict):
                yield "args are no object"
        before = content
    if before is not None and any("functionCall" in part for part in before["parts"]):
        yield "a function call turn has no function response turn after it"
    if request["systemInstruction"] is not None and not request["systemInstruction"]["parts"]:
        yield "an empty system instruction"


def faults(context: Sequence[Message]) -> list[str]:
    """Lists what any of the three refuses of a context, whose fault it is in front."""
    return [
        *(f"openai: {fault}" for fault in openai_faults(openai_request(context))),
        *(f"anthropic: {fault}" for fault in anthropic_faults(anthropic_request(context))),
        *(f"gemini: {fault}" for fault in gemini_faults(gemini_request(context))),
    ]
