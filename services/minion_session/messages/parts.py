"""Between the contract's parts of messages and the domain's."""

from typing import Any

from minion.session.v1 import message_pb2
from minion_errors import Violations
from minion_grpc import wire

from minion_session.messages.domain import (
    MediaPart,
    Part,
    Role,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)

# What all parts of a message may have together; a text has no limit of its own.
MOST_BYTES = 256 * 1024
_MOST_SIGNATURE_BYTES = 16 * 1024
_SPOKEN_BY = {
    "text": frozenset({Role.USER, Role.SYSTEM, Role.ASSISTANT}),
    "media": frozenset({Role.USER, Role.ASSISTANT}),
    "thinking": frozenset({Role.ASSISTANT}),
    "tool_call": frozenset({Role.ASSISTANT}),
    "tool_result": frozenset({Role.TOOL}),
}


def to_proto(part: Part) -> message_pb2.Part:
    """Writes a part."""
    match part:
        case TextPart(text):
            return message_pb2.Part(text=text)
        case ToolCallPart(tool_call_id, name, arguments):
            call = message_pb2.ToolCall(tool_call_id=tool_call_id, name=name, arguments=wire.to_struct(arguments))
            return message_pb2.Part(tool_call=call)
        case ToolResultPart(tool_call_id, name, output, is_error, blob_id):
            result = message_pb2.ToolResult(
                tool_call_id=tool_call_id,
                name=name,
                output=wire.to_value(output),
                is_error=is_error,
                blob_id=wire.optional_text(blob_id),
            )
            return message_pb2.Part(tool_result=result)
        case MediaPart(media_type, name, None, uri):
            return message_pb2.Part(media=message_pb2.Media(media_type=media_type, name=name, uri=uri))
        case MediaPart(media_type, name, blob_id, _):
            return message_pb2.Part(media=message_pb2.Media(media_type=media_type, name=name, blob_id=str(blob_id)))
        case ThinkingPart(text, signature):
            return message_pb2.Part(thinking=message_pb2.Thinking(text=text, signature=signature))


def json_value(part: Part) -> Any:
    """Gives the JSON value of a part, which is what converting it costs; None where it has none."""
    match part:
        case ToolCallPart(_, _, arguments):
            return arguments
        case ToolResultPart(_, _, output, _, _):
            return output
        case _:
            return None


def from_proto(part: message_pb2.Part, field: str, role: Role | None, violations: Violations) -> Part | None:
    """Reads a part of a message of this role; None (and a fault) when it is nothing."""
    kind = part.WhichOneof("content")
    if kind is None:
        violations.add(field, f"needs one of {', '.join(_SPOKEN_BY)}")
        return None
    if role is not None and role not in _SPOKEN_BY[kind]:
        violations.add(f"{field}.{kind}", f"doesn't belong in a message of the role {role.name}")
    field = f"{field}.{kind}"
    match kind:
        case "text":
            return TextPart(violations.length(field, part.text, maximum=MOST_BYTES))
        case "media":
            return _media_from_proto(part.media, field, violations)
        case "thinking":
            return _thinking_from_proto(part.thinking, field, violations)
        case "tool_call":
            call = part.tool_call
            return ToolCallPart(
                *_named(call, field, violations), wire.from_struct(call.arguments, f"{field}.arguments", violations)
            )
        case "tool_result":
            result = part.tool_result
            return ToolResultPart(
                *_named(result, field, violations),
                wire.from_value(result.output, f"{field}.output", violations),
                result.is_error,
                violations.optional_identifier(f"{field}.blob_id", result.blob_id),
            )


def _named(named: message_pb2.ToolCall | message_pb2.ToolResult, field: str, violations: Violations) -> tuple[str, str]:
    return (
        violations.length(f"{field}.tool_call_id", named.tool_call_id, minimum=1, maximum=128),
        violations.length(f"{field}.name", named.name, minimum=1, maximum=64),
    )


def _media_from_proto(media: message_pb2.Media, field: str, violations: Violations) -> MediaPart:
    place = media.WhichOneof("location")
    if place is None:
        violations.add(field, "needs one of blob_id, uri")
    if place == "uri":
        violations.length(f"{field}.uri", media.uri, maximum=2_000)
        if not media.uri.startswith("https://"):
            violations.add(f"{field}.uri", "must begin with https://")
    return MediaPart(
        media_type=violations.length(f"{field}.media_type", media.media_type, minimum=1, maximum=127),
        name=violations.length(f"{field}.name", media.name, maximum=200),
        blob_id=violations.identifier(f"{field}.blob_id", media.blob_id) if place == "blob_id" else None,
        uri=media.uri,
    )


def _thinking_from_proto(thinking: message_pb2.Thinking, field: str, violations: Violations) -> ThinkingPart:
    size = len(thinking.signature.encode())
    if size > _MOST_SIGNATURE_BYTES:
        violations.add(f"{field}.signature", f"must have at most {_MOST_SIGNATURE_BYTES} bytes, has {size}")
    return ThinkingPart(
        text=violations.length(f"{field}.text", thinking.text, minimum=1, maximum=MOST_BYTES),
        signature=violations.length(f"{field}.signature", thinking.signature, maximum=MOST_BYTES),
    )
