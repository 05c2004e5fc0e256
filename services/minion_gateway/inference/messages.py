"""What a model is asked and answers, in the form of the GenAI conventions: their JSON schemas of messages on spans."""

from collections.abc import Iterator
from typing import Any

from minion_gateway.inference.domain import ChatMessage, Completion, CompletionRequest, Role, ToolCall


def asked(request: CompletionRequest) -> Iterator[dict[str, Any]]:
    """Makes the messages that the model is shown, newest first, one by one; the system's are among them."""
    for message in reversed(request.messages):
        yield {"role": message.role.value, "parts": _parts(message)}


def answered(completion: Completion) -> dict[str, Any]:
    """Gives the answer."""
    return {
        "role": Role.ASSISTANT.value,
        "parts": [*_texts(completion.text), *map(_call, completion.tool_calls)],
        "finish_reason": completion.finish_reason.value,
    }


def _parts(message: ChatMessage) -> list[dict[str, Any]]:
    if message.role is Role.TOOL:
        return [{"type": "tool_call_response", "id": message.tool_call_id, "response": message.text}]
    return [*_texts(message.text), *map(_call, message.tool_calls)]


def _texts(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "content": text}] if text else []


def _call(call: ToolCall) -> dict[str, Any]:
    # What the model wrote, where that is no object: the schema takes anything.
    arguments = call.decoded()
    return {
        "type": "tool_call",
        "id": call.id,
        "name": call.name,
        "arguments": call.arguments if arguments is None else arguments,
    }
