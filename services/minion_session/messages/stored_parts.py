"""How a part of a message stands in the database: an object with one name, which says what it is."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from minion_session.messages.domain import (
    MediaPart,
    Part,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)


def part_to_json(part: Part) -> dict[str, Any]:
    """Writes a part as JSON."""
    match part:
        case TextPart(text):
            return {"text": text}
        case ToolCallPart(tool_call_id, name, arguments):
            return {"call": {"id": tool_call_id, "name": name, "arguments": arguments}}
        case ToolResultPart(tool_call_id, name, output, is_error, blob_id):
            result = {"id": tool_call_id, "name": name, "output": output}
            if is_error:
                result["error"] = True
            if blob_id is not None:
                result["blob"] = str(blob_id)
            return {"result": result}
        case MediaPart(media_type, name, blob_id, uri):
            place = {"blob": str(blob_id)} if blob_id is not None else {"uri": uri}
            return {"media": {"type": media_type, "name": name, **place}}
        case ThinkingPart(text, signature):
            return {"thinking": {"text": text, "signature": signature}}


def part_from_json(stored: Mapping[str, Any]) -> Part:
    """Reads a part back."""
    if "text" in stored:
        return TextPart(stored["text"])
    if "call" in stored:
        call = stored["call"]
        return ToolCallPart(call["id"], call["name"], call["arguments"])
    if "result" in stored:
        result = stored["result"]
        return ToolResultPart(result["id"], result["name"], result["output"], result.get("error", False), _blob(result))
    if "media" in stored:
        media = stored["media"]
        return MediaPart(media["type"], media["name"], _blob(media), media.get("uri", ""))
    thinking = stored["thinking"]
    return ThinkingPart(thinking["text"], thinking["signature"])


def _blob(stored: Mapping[str, Any]) -> UUID | None:
    return UUID(stored["blob"]) if "blob" in stored else None
