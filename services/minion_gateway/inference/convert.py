"""Between the contract's messages and `inference.domain`; all faults of a request are reported at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from minion.gateway.v1 import inference_pb2 as pb
from minion.gateway.v1 import inference_service_pb2 as service_pb
from minion_errors import Violations
from minion_grpc.wire import from_bounded_struct, from_struct, to_struct
from minion_postgres import pages

from minion_gateway.inference.domain import (
    ChatMessage,
    Completion,
    CompletionRequest,
    Delta,
    Embeddings,
    Finished,
    FinishReason,
    Model,
    ModelKind,
    Role,
    TextDelta,
    ToolCall,
    ToolSpec,
    Usage,
)
from minion_gateway.inference.faults import answer_invalid
from minion_gateway.inference.schemas import schema_faults

_ROLES = {
    pb.CHAT_ROLE_SYSTEM: Role.SYSTEM,
    pb.CHAT_ROLE_USER: Role.USER,
    pb.CHAT_ROLE_ASSISTANT: Role.ASSISTANT,
    pb.CHAT_ROLE_TOOL: Role.TOOL,
}
_FINISH_REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.TOOL_CALLS: pb.FINISH_REASON_TOOL_CALLS,
    FinishReason.CONTENT_FILTER: pb.FINISH_REASON_CONTENT_FILTER,
}
_KINDS = {ModelKind.CHAT: pb.MODEL_KIND_CHAT, ModelKind.EMBEDDING: pb.MODEL_KIND_EMBEDDING}
_KINDS_ASKED = {pb.MODEL_KIND_UNSPECIFIED: None, **{number: kind for kind, number in _KINDS.items()}}
_DEFAULT_OUTPUT_TOKENS = 1_024
# What a message costs beside its JSON, in bytes of JSON that take as long to convert.
_MESSAGE_BYTES = 16
_MEBIBYTE = 1024 * 1024
_MOST_SCHEMA_BYTES = 64 * 1024
_DEFAULT_PAGE, _LARGEST_PAGE = 50, 500


@dataclass(frozen=True, slots=True)
class ModelPage:
    """Which models are asked for: of a kind, by name after `after`."""

    kind: ModelKind | None
    after: str
    limit: int


def completion_from_proto(request: service_pb.CompleteRequest | service_pb.StreamCompleteRequest) -> CompletionRequest:
    """Reads a question to a model."""
    violations = Violations()
    violations.length("model", request.model, maximum=200)
    violations.count("messages", request.messages, minimum=1, maximum=1_000)
    violations.count("tools", request.tools, maximum=128)
    if request.HasField("temperature"):
        violations.between("temperature", request.temperature, minimum=0, maximum=2)
    if request.max_output_tokens:
        violations.between("max_output_tokens", request.max_output_tokens, minimum=1, maximum=200_000)
    if sum(message.ByteSize() for message in request.messages) > _MEBIBYTE:
        violations.stop("messages", "must have at most 1 MiB together")
    messages = tuple(
        _message(f"messages[{index}]", message, violations) for index, message in enumerate(request.messages)
    )
    tools = tuple(_tool(f"tools[{index}]", tool, violations) for index, tool in enumerate(request.tools))
    schema = _response_schema(request, violations)
    violations.raise_if_any()
    return CompletionRequest(
        model=request.model,
        messages=messages,
        tools=tools,
        temperature=request.temperature if request.HasField("temperature") else None,
        maximum_output_tokens=request.max_output_tokens or _DEFAULT_OUTPUT_TOKENS,
        response_schema=schema,
    )


def texts_from_proto(request: service_pb.EmbedRequest) -> tuple[tuple[str, ...], str]:
    """Reads the texts to embed, and the model's name."""
    violations = Violations()
    violations.length("model", request.model, maximum=200)
    violations.count("texts", request.texts, minimum=1, maximum=100)
    for index, text in enumerate(request.texts):
        violations.length(f"texts[{index}]", text, minimum=1, maximum=32_768)
    if sum(len(text.encode()) for text in request.texts) > _MEBIBYTE:
        violations.add("texts", "must have at most 1 MiB together")
    violations.raise_if_any()
    return tuple(request.texts), request.model


def page_from_proto(request: service_pb.ListModelsRequest) -> ModelPage:
    """Reads which models are asked for."""
    violations = Violations()
    if request.kind not in _KINDS_ASKED:
        violations.add("kind", "is no kind of model")
    if request.page_size < 0:
        violations.add("page_size", "must not be negative")
    violations.raise_if_any()
    after = ""
    if request.page_token:
        (after,) = pages.decode(request.page_token, _filters(request), [str])  # type: ignore[assignment]
    return ModelPage(_KINDS_ASKED[request.kind], after or "", min(request.page_size or _DEFAULT_PAGE, _LARGEST_PAGE))


def page_to_proto(
    request: service_pb.ListModelsRequest, models: Sequence[Model], limit: int
) -> service_pb.ListModelsResponse:
    """Writes a page; a model more than the limit says that there is a next one."""
    shown = models[:limit]
    token = pages.encode([shown[-1].name], _filters(request)) if len(models) > limit else ""
    return service_pb.ListModelsResponse(models=[_model(model) for model in shown], next_page_token=token)


def request_bytes(request: service_pb.CompleteRequest | service_pb.StreamCompleteRequest) -> int:
    """Measures a question for `wire.off_loop`: the JSON in it."""
    calls = sum(call.ByteSize() for message in request.messages for call in message.tool_calls)
    schemas = sum(tool.ByteSize() for tool in request.tools) + request.response_schema.ByteSize()
    return calls + schemas + len(request.messages) * _MESSAGE_BYTES


def answer_bytes(delta: Delta) -> int:
    """Measures a piece of an answer for `wire.off_loop`: the JSON in it."""
    calls = delta.completion.tool_calls if isinstance(delta, Finished) else ()
    return sum(len(call.arguments) for call in calls)


def vector_bytes(embeddings: Embeddings) -> int:
    """Measures vectors for `wire.off_loop`: a number takes 0.07 µs."""
    return len(embeddings.vectors) * embeddings.dimensions // 4


def completion_to_proto(completion: Completion) -> pb.Completion:
    """Writes an answer. Raises PROVIDER_ANSWER_INVALID where the model wrote arguments that are no object."""
    return pb.Completion(
        model=completion.model,
        text=completion.text,
        tool_calls=[_call_to_proto(call) for call in completion.tool_calls],
        finish_reason=_FINISH_REASONS[completion.finish_reason],
        usage=usage_to_proto(completion.usage),
        cost_nanos=completion.cost_nanos,
    )


def delta_to_proto(delta: Delta) -> service_pb.StreamCompleteResponse | None:
    """Writes a piece of a streamed answer; calls come whole, with the completion."""
    match delta:
        case TextDelta(text):
            return service_pb.StreamCompleteResponse(text_delta=text)
        case Finished(completion):
            return service_pb.StreamCompleteResponse(completion=completion_to_proto(completion))
        case _:
            return None


def embeddings_to_proto(embeddings: Embeddings) -> service_pb.EmbedResponse:
    """Writes vectors."""
    return service_pb.EmbedResponse(
        model=embeddings.model,
        dimension=embeddings.dimensions,
        embeddings=[pb.EmbeddedText(values=vector) for vector in embeddings.vectors],
        usage=usage_to_proto(embeddings.usage),
        cost_nanos=embeddings.cost_nanos,
    )


def usage_to_proto(usage: Usage) -> pb.Usage:
    """Writes token counts."""
    return pb.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )


def _message(path: str, message: pb.ChatMessage, violations: Violations) -> ChatMessage:
    role = _ROLES.get(message.role)
    if role is None:
        violations.add(f"{path}.role", "is required")
    if message.tool_calls and role is not Role.ASSISTANT:
        violations.add(f"{path}.tool_calls", "stand on an ASSISTANT's message alone")
    if role is Role.TOOL:
        violations.require(f"{path}.tool_call_id", message.tool_call_id)
    elif message.tool_call_id:
        violations.add(f"{path}.tool_call_id", "stands on a TOOL's message alone")
    violations.length(f"{path}.tool_call_id", message.tool_call_id, maximum=128)
    violations.count(f"{path}.tool_calls", message.tool_calls, maximum=128)
    calls = tuple(
        _call(f"{path}.tool_calls[{index}]", call, violations) for index, call in enumerate(message.tool_calls)
    )
    return ChatMessage(role or Role.USER, message.text, calls, message.tool_call_id)


def _call(path: str, call: pb.ChatToolCall, violations: Violations) -> ToolCall:
    violations.length(f"{path}.tool_call_id", call.tool_call_id, minimum=1, maximum=128)
    violations.length(f"{path}.name", call.name, minimum=1, maximum=64)
    arguments = from_struct(call.arguments, f"{path}.arguments", violations)
    return ToolCall(call.tool_call_id, call.name, orjson.dumps(arguments).decode())


def _tool(path: str, tool: pb.ChatTool, violations: Violations) -> ToolSpec:
    violations.length(f"{path}.name", tool.name, minimum=1, maximum=64)
    violations.length(f"{path}.description", tool.description, maximum=4_000)
    schema = from_bounded_struct(tool.input_schema, f"{path}.input_schema", violations, maximum=_MOST_SCHEMA_BYTES)
    return ToolSpec(tool.name, tool.description, schema or {"type": "object", "properties": {}})


def _response_schema(
    request: service_pb.CompleteRequest | service_pb.StreamCompleteRequest, violations: Violations
) -> dict[str, Any] | None:
    if not request.HasField("response_schema"):
        return None
    field = "response_schema"
    schema = from_bounded_struct(request.response_schema, field, violations, maximum=_MOST_SCHEMA_BYTES)
    # One that can't be read is no schema to look into.
    violations.raise_if_any()
    for fault in schema_faults(schema, field):
        violations.add(fault.field, fault.description)
    return schema


def _call_to_proto(call: ToolCall) -> pb.ChatToolCall:
    arguments = call.decoded()
    if arguments is None:
        raise answer_invalid("The model wrote arguments for a tool that are not a JSON object.")
    return pb.ChatToolCall(tool_call_id=call.id, name=call.name, arguments=to_struct(arguments))


def _model(model: Model) -> pb.Model:
    return pb.Model(
        name=model.name,
        provider=model.provider,
        kind=_KINDS[model.kind],
        dimension=model.dimensions,
        stand_in=model.stand_in,
        default_model=model.default,
    )


def _filters(request: service_pb.ListModelsRequest) -> dict[str, object]:
    return {"kind": request.kind}
