"""What a model is asked, as it stands on spans."""

from minion_gateway.inference.domain import ChatMessage, CompletionRequest, Role, ToolCall
from minion_gateway.inference.messages import asked


def test_the_newest_message_is_made_first_and_each_when_it_is_asked_for() -> None:
    call = ToolCall("c1", "recall", '{"query": "who?"}')
    messages = (
        ChatMessage(Role.USER, "Who?"),
        ChatMessage(Role.ASSISTANT, "Let me see.", tool_calls=(call,)),
        ChatMessage(Role.TOOL, "Ada.", tool_call_id="c1"),
    )
    found = asked(CompletionRequest("openai/gpt", messages))
    assert next(found) == {
        "role": "tool",
        "parts": [{"type": "tool_call_response", "id": "c1", "response": "Ada."}],
    }
    assert next(found) == {
        "role": "assistant",
        "parts": [
            {"type": "text", "content": "Let me see."},
            {"type": "tool_call", "id": "c1", "name": "recall", "arguments": {"query": "who?"}},
        ],
    }
