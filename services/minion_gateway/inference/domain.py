"""What is asked of a language model and what it answers, in no provider's words.

Providers and embedders stand behind the two Protocols at the end. Models are named `provider/model`, as in
`openai/gpt-4o-mini`.
"""

import enum
from array import array
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import orjson

NANOS_PER_USD = 1_000_000_000
CURRENCY = "USD"
# What a Struct may have, so that its readers take it.
_MOST_LEVELS = 32


class Role(enum.Enum):
    """Who speaks a message; the values are the OpenAI protocol's."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class FinishReason(enum.Enum):
    """Why the model stopped; the values are the OpenAI protocol's."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for. `arguments` is the JSON text exactly as the model wrote it."""

    id: str
    name: str
    arguments: str

    def decoded(self) -> dict[str, Any] | None:
        """Returns the arguments as an object of at most 32 levels, or None where the model wrote anything else.

        orjson, because it refuses what no reply can hold: NaN, numbers beyond a double, half characters.
        """
        try:
            value = orjson.loads(self.arguments or "{}")
        except ValueError:
            return None
        return value if isinstance(value, dict) and _nested_within(value, _MOST_LEVELS) else None


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation.

    `tool_calls` stands on ASSISTANT messages alone; `tool_call_id` on TOOL messages alone, naming the call that the
    text is the result of.
    """

    role: Role
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool that the model may call; `parameters` is the JSON Schema of its arguments, an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One question to a model.

    `attempt` names this attempt for the provider's own records (`minion-attempt`), so that its ledger can be held
    against ours. `response_schema` asks for an answer that is JSON of that schema.
    """

    model: str
    messages: tuple[ChatMessage, ...]
    tools: tuple[ToolSpec, ...] = ()
    temperature: float | None = None
    maximum_output_tokens: int | None = None
    response_schema: Mapping[str, Any] | None = None
    attempt: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them.

    `cached_tokens` is a part of `input_tokens`, and `reasoning_tokens` of `output_tokens`. `estimated` says that the
    provider counted nothing and the numbers are ours.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer. `model` is the full name that was asked for, `provider_model` what the provider says served it.

    `cost_nanos` is in nano-units of USD; None where the model's price is unknown, which is never the same as 0.
    """

    text: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    usage: Usage
    model: str
    provider: str
    provider_model: str = ""
    cost_nanos: int | None = None

    def with_cost(self, cost_nanos: int | None) -> "Completion":
        """Returns the same answer with its price."""
        return replace(self, cost_nanos=cost_nanos)


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer's text; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """The next piece of the call at `index`; `id` and `name` come with its first piece alone."""

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The last delta of every stream that was not cut: the whole answer again, with usage and price."""

    completion: Completion


Delta = TextDelta | ToolCallDelta | Finished


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector of `dimensions` 32-bit floats, of length 1, for each text in order.

    `truncated` counts the texts that were longer than the model reads, and stand for their beginning alone.
    """

    vectors: tuple["array[float]", ...]
    model: str
    dimensions: int
    usage: Usage = field(default_factory=Usage)
    truncated: int = 0
    cost_nanos: int | None = None

    def with_cost(self, cost_nanos: int | None) -> "Embeddings":
        """Returns the same vectors with their price."""
        return replace(self, cost_nanos=cost_nanos)


class ModelKind(enum.Enum):
    """What a model is for."""

    CHAT = "chat"
    EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True)
class Model:
    """A model that this deployment offers, by its full name.

    `dimensions` is 0 for chat models. `stand_in` marks the one that follows rules and understands nothing.
    """

    name: str
    provider: str
    kind: ModelKind
    dimensions: int = 0
    stand_in: bool = False
    default: bool = False


class Operation(enum.Enum):
    """What a model is asked to do; the values are OpenTelemetry's."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True)
class InferenceCall:
    """A call outside of any run, for the audit. `reason` is empty where it succeeded."""

    operation: Operation
    model: str
    usage: Usage
    cost_nanos: int | None
    reason: str = ""


def _nested_within(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        return levels > 0 and all(_nested_within(item, levels - 1) for item in value.values())
    if isinstance(value, list):
        return levels > 0 and all(_nested_within(item, levels - 1) for item in value)
    return True


class Provider(Protocol):
    """A service that completes chats, reached by its own protocol."""

    @property
    def name(self) -> str:
        """The first part of its models' names, as in `openai`."""

    async def start(self) -> None:
        """Loads what the first call would, off the event loop; may be left out."""

    async def complete(self, request: CompletionRequest) -> Completion:
        """Returns the whole answer; `request.model` is without the provider's name."""

    def stream(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """Yields the answer's pieces, `Finished` last; anything else is an error, never a silent end."""

    async def close(self) -> None:
        """Lets go of connections; calls under way are cut."""


class Embedder(Protocol):
    """A model that turns texts into vectors."""

    @property
    def model(self) -> str:
        """Its full name, as in `local/all-minilm-l6-v2`."""

    @property
    def dimensions(self) -> int:
        """Length of its vectors."""

    async def start(self) -> None:
        """Loads what the first call would, off the event loop; may be left out."""

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """Returns one vector a text, in order."""

    async def close(self) -> None:
        """Lets go of connections and threads."""
