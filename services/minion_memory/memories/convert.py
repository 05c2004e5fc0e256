"""Between the contract's memories and the domain's; checks the shape of requests."""

from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import numpy as np
from google.protobuf.message import Message
from minion.memory.v1 import memory_pb2, memory_service_pb2
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key
from uuid_utils.compat import uuid7

from minion_memory.memories.domain import (
    MOST_LABELS,
    Embedding,
    Filters,
    Memory,
    MemoryType,
    NewMemory,
    Outcome,
    Source,
    Stored,
    Trust,
    Update,
    key_of,
)

_MOST_JSON_BYTES = 16 * 1024
_MOST_BATCH_BYTES = 1024 * 1024
_DEFAULT_PAGE, _LARGEST_PAGE = 50, 500
_MOST_LABELS_ASKED = 8
_DEFAULT_IMPORTANCE, _DEFAULT_CONFIDENCE = 0.5, 1.0

_TYPES = {getattr(memory_pb2, f"MEMORY_TYPE_{kind.name}"): kind for kind in MemoryType}
_TYPES_TO_PROTO = {kind: number for number, kind in _TYPES.items()}
_TRUSTS = {getattr(memory_pb2, f"MEMORY_TRUST_{trust.name}"): trust for trust in Trust}
_TRUSTS_TO_PROTO = {trust: number for number, trust in _TRUSTS.items()}
_OUTCOMES_TO_PROTO = {outcome: getattr(memory_pb2, f"STORE_OUTCOME_{outcome.name}") for outcome in Outcome}


def store_from_proto(request: memory_service_pb2.StoreMemoriesRequest) -> tuple[tuple[NewMemory, ...], Key | None]:
    """Reads a batch to store, with what makes it repeatable."""
    violations = Violations()
    violations.count("memories", request.memories, minimum=1, maximum=100)
    size = sum(len(new.memory.content.encode()) for new in request.memories)
    if size > _MOST_BATCH_BYTES:
        violations.stop("memories", f"must have at most {_MOST_BATCH_BYTES} bytes of content together, have {size}")
    batch = tuple(
        new_memory_from_proto(new, f"memories[{index}]", violations) for index, new in enumerate(request.memories)
    )
    _check_distinct(batch, violations)
    key = key_from_proto(request, violations)
    violations.raise_if_any()
    return batch, key


def memory_id_from_proto(
    request: memory_service_pb2.GetMemoryRequest | memory_service_pb2.DeleteMemoryRequest,
) -> UUID:
    """Reads which memory is meant."""
    violations = Violations()
    memory_id = violations.identifier("memory_id", request.memory_id)
    violations.raise_if_any()
    return memory_id


def by_key_from_proto(request: memory_service_pb2.GetMemoryByKeyRequest) -> tuple[UUID, str, str]:
    """Reads agent, user and key of the memory that is meant."""
    violations = Violations()
    agent_id = violations.identifier("agent_id", request.agent_id)
    user_id = violations.length("user_id", request.user_id, minimum=1, maximum=200)
    key = violations.length("key", request.key, minimum=1, maximum=200)
    violations.raise_if_any()
    return agent_id, user_id, key


def update_from_proto(request: memory_service_pb2.UpdateMemoryRequest) -> tuple[Update, Key | None]:
    """Reads what is to change, with what makes it repeatable."""
    violations = Violations()
    memory_id = violations.identifier("memory.memory_id", request.memory.memory_id)
    paths: Collection[str] = ()
    if request.update_mask.paths:
        paths = wire.mask_paths(request.update_mask, _CHANGEABLE, "update_mask", violations)
    else:
        violations.add("update_mask", "is required")
    values = {
        name: read(request.memory, f"memory.{name}", violations) for name, read in _CHANGEABLE.items() if name in paths
    }
    begins, ends = values.get("valid_from"), values.get("valid_until")
    if begins and ends and ends < begins:
        violations.add("memory.valid_until", "must not be before valid_from")
    embedding = _embedding(request.embedding, "embedding", violations) if request.HasField("embedding") else None
    if embedding and "content" not in paths:
        violations.add("embedding", "is of a new content: update_mask must name content")
    update = Update(
        memory_id=memory_id,
        values=values,
        embedding=embedding,
        etag=request.etag,
        reason=violations.length("reason", request.reason, maximum=2_000),
    )
    key = key_from_proto(request, violations)
    violations.raise_if_any()
    return update, key


def delete_from_proto(request: memory_service_pb2.DeleteMemoryRequest) -> tuple[UUID, Key | None]:
    """Reads which memory is to be deleted, with what makes it repeatable."""
    violations = Violations()
    memory_id = violations.identifier("memory_id", request.memory_id)
    key = key_from_proto(request, violations)
    violations.raise_if_any()
    return memory_id, key


def list_from_proto(request: memory_service_pb2.ListMemoriesRequest) -> tuple[Filters, int]:
    """Reads the filters and the size of a page."""
    violations = Violations()
    filters = Filters(
        agent_id=violations.optional_identifier("agent_id", request.agent_id),
        user_id=violations.length("user_id", request.user_id, maximum=200) or None,
        type=_type(request.type, "type", violations) if request.type else None,
        session_id=violations.optional_identifier("session_id", request.session_id),
        labels=_labels(request.labels, "labels", violations, maximum=_MOST_LABELS_ASKED),
        include_ended=request.include_ended,
    )
    if request.page_size < 0:
        violations.add("page_size", f"must not be negative, is {request.page_size}")
    violations.raise_if_any()
    return filters, min(request.page_size or _DEFAULT_PAGE, _LARGEST_PAGE)


def stored_to_proto(stored: tuple[Stored, ...]) -> memory_service_pb2.StoreMemoriesResponse:
    """Writes what became of a batch."""
    response = memory_service_pb2.StoreMemoriesResponse()
    for one in stored:
        result = response.results.add(outcome=_OUTCOMES_TO_PROTO[one.outcome])
        set_memory(result.memory, one.memory)
    return response


def memories_to_proto(memories: Sequence[Memory]) -> list[memory_pb2.Memory]:
    """Writes memories."""
    return [memory_to_proto(memory) for memory in memories]


def memory_to_proto(memory: Memory) -> memory_pb2.Memory:
    """Writes a memory."""
    message = memory_pb2.Memory()
    set_memory(message, memory)
    return message


def set_memory(message: memory_pb2.Memory, memory: Memory) -> None:
    """Writes a memory where its message stands: handed over, it would be copied, which costs as much as making it.

    What is empty mostly is left out then: protobuf takes its time for empty fields too.
    """
    message.memory_id = str(memory.memory_id)
    message.agent_id = str(memory.agent_id)
    message.user_id = memory.user_id
    message.key = memory.key
    message.type = _TYPES_TO_PROTO[memory.type]
    message.content = memory.content
    if memory.speaker:
        message.speaker = memory.speaker
    message.importance = memory.importance
    message.confidence = memory.confidence
    message.trust = _TRUSTS_TO_PROTO[memory.trust]
    if memory.labels:
        message.labels.update(memory.labels)
    if memory.metadata:
        wire.set_struct(message.metadata, memory.metadata)
    source = memory.source
    if source.session_id or source.message_sequences or source.quote:
        message.source.session_id = wire.optional_text(source.session_id)
        message.source.message_sequences.extend(source.message_sequences)
        message.source.quote = source.quote
    message.embedding_model = memory.embedding_model
    wire.set_timestamp(message.create_time, memory.create_time)
    wire.set_timestamp(message.update_time, memory.update_time)
    wire.set_timestamp(message.valid_from, memory.valid_from)
    if memory.valid_until:
        wire.set_timestamp(message.valid_until, memory.valid_until)
    wire.set_timestamp(message.occur_time, memory.occur_time)
    if memory.superseded_by:
        message.superseded_by = str(memory.superseded_by)
    message.access_count = memory.access_count
    if memory.access_time:
        wire.set_timestamp(message.access_time, memory.access_time)
    message.revision = memory.revision
    message.etag = memory.etag


def new_memory_from_proto(new: memory_service_pb2.NewMemory, field: str, violations: Violations) -> NewMemory:
    """Reads a memory to store, which the request has at `field`."""
    memory = new.memory
    at = f"{field}.memory"
    violations.length(f"{at}.key", memory.key, maximum=200)
    content = _content(memory, f"{at}.content", violations)
    valid_from = _moment(memory, "valid_from", f"{at}.valid_from", violations)
    valid_until = _moment(memory, "valid_until", f"{at}.valid_until", violations)
    occur_time = _moment(memory, "occur_time", f"{at}.occur_time", violations)
    begins = valid_from or occur_time
    if begins and valid_until and valid_until < begins:
        violations.add(f"{at}.valid_until", "must not be before valid_from")
    return NewMemory(
        memory_id=violations.optional_identifier(f"{at}.memory_id", memory.memory_id) or uuid7(),
        agent_id=violations.identifier(f"{at}.agent_id", memory.agent_id),
        user_id=violations.length(f"{at}.user_id", memory.user_id, minimum=1, maximum=200),
        key=memory.key or key_of(content),
        type=_type(memory.type, f"{at}.type", violations),
        content=content,
        speaker=_speaker(memory, f"{at}.speaker", violations),
        importance=_importance(memory, f"{at}.importance", violations),
        confidence=_confidence(memory, f"{at}.confidence", violations),
        trust=_trust(memory.trust, f"{at}.trust", violations),
        labels=_labels(memory.labels, f"{at}.labels", violations),
        metadata=_metadata(memory, f"{at}.metadata", violations),
        source=_source(memory.source, f"{at}.source", violations),
        valid_from=valid_from,
        valid_until=valid_until,
        occur_time=occur_time,
        embedding=_embedding(new.embedding, f"{field}.embedding", violations) if new.HasField("embedding") else None,
    )


def _check_distinct(batch: tuple[NewMemory, ...], violations: Violations) -> None:
    keys: dict[tuple[UUID, str, str], int] = {}
    ids: dict[UUID, int] = {}
    for index, memory in enumerate(batch):
        first = keys.setdefault((memory.agent_id, memory.user_id, memory.key), index)
        if first != index:
            violations.add(f"memories[{index}].memory.key", f"is that of memories[{first}], of the same agent and user")
        first = ids.setdefault(memory.memory_id, index)
        if first != index:
            violations.add(f"memories[{index}].memory.memory_id", f"is that of memories[{first}]")


def _type(number: int, field: str, violations: Violations) -> MemoryType:
    kind = _TYPES.get(number)
    if kind is None:
        violations.add(field, "must be FACT, PREFERENCE, CONTEXT or SKILL")
        return MemoryType.FACT
    return kind


def _trust(number: int, field: str, violations: Violations) -> Trust:
    if number == memory_pb2.MEMORY_TRUST_UNSPECIFIED:
        return Trust.ASSERTED
    trust = _TRUSTS.get(number)
    if trust is None:
        violations.add(field, "must be ASSERTED, USER or TOOL")
        return Trust.ASSERTED
    return trust


def _content(memory: memory_pb2.Memory, field: str, violations: Violations) -> str:
    if memory.content and not memory.content.strip():
        violations.add(field, "must not be blank")
    return violations.length(field, memory.content, minimum=1, maximum=32_768)


def _speaker(memory: memory_pb2.Memory, field: str, violations: Violations) -> str:
    return violations.length(field, memory.speaker, maximum=200)


def _importance(memory: memory_pb2.Memory, field: str, violations: Violations) -> float:
    value = memory.importance if memory.HasField("importance") else _DEFAULT_IMPORTANCE
    violations.between(field, value, minimum=0, maximum=1)
    return value


def _confidence(memory: memory_pb2.Memory, field: str, violations: Violations) -> float:
    value = memory.confidence if memory.HasField("confidence") else _DEFAULT_CONFIDENCE
    violations.between(field, value, minimum=0, maximum=1)
    return value


def _metadata(memory: memory_pb2.Memory, field: str, violations: Violations) -> dict[str, Any]:
    return wire.from_bounded_struct(memory.metadata, field, violations, maximum=_MOST_JSON_BYTES)


def _labels(
    labels: Mapping[str, str], field: str, violations: Violations, *, maximum: int = MOST_LABELS
) -> dict[str, str]:
    violations.count(field, labels, maximum=maximum)
    for label, value in labels.items():
        violations.length(f"{field} (key {label[:63]!r})", label, minimum=1, maximum=63)
        violations.length(f"{field}[{label[:63]!r}]", value, maximum=63)
    return dict(labels)


def _source(source: memory_pb2.MemorySource, field: str, violations: Violations) -> Source:
    violations.count(f"{field}.message_sequences", source.message_sequences, maximum=32)
    return Source(
        session_id=violations.optional_identifier(f"{field}.session_id", source.session_id),
        message_sequences=tuple(source.message_sequences),
        quote=violations.length(f"{field}.quote", source.quote, maximum=2_000),
    )


def _moment(
    memory: memory_pb2.Memory,
    name: Literal["valid_from", "valid_until", "occur_time"],
    field: str,
    violations: Violations,
) -> datetime | None:
    return wire.from_timestamp(getattr(memory, name), field, violations) if memory.HasField(name) else None


def _required_moment(
    memory: memory_pb2.Memory, name: Literal["valid_from", "occur_time"], field: str, violations: Violations
) -> datetime | None:
    if not memory.HasField(name):
        violations.add(field, "is required where the mask names it")
    return _moment(memory, name, field, violations)


def _embedding(embedding: memory_pb2.Embedding, field: str, violations: Violations) -> Embedding:
    violations.length(f"{field}.model", embedding.model, minimum=1, maximum=200)
    # By way of numpy, which takes protobuf's numbers over without making an object of each.
    return Embedding(embedding.model, array("f", np.asarray(embedding.values, np.float32).tobytes()))


# What UpdateMemory changes, and how each is read.
_CHANGEABLE: Mapping[str, Callable[[memory_pb2.Memory, str, Violations], Any]] = {
    "type": lambda memory, field, violations: _type(memory.type, field, violations),
    "content": _content,
    "speaker": _speaker,
    "importance": _importance,
    "confidence": _confidence,
    "labels": lambda memory, field, violations: _labels(memory.labels, field, violations),
    "metadata": _metadata,
    "source": lambda memory, field, violations: _source(memory.source, field, violations),
    "valid_from": lambda memory, field, violations: _required_moment(memory, "valid_from", field, violations),
    "valid_until": lambda memory, field, violations: _moment(memory, "valid_until", field, violations),
    "occur_time": lambda memory, field, violations: _required_moment(memory, "occur_time", field, violations),
}


def key_from_proto(request: Any, violations: Violations) -> Key | None:
    """Reads what makes a request repeatable."""
    request_id = violations.optional_identifier("request_id", request.request_id)
    if request_id is None:
        return None
    method = str(request.DESCRIPTOR.name).removesuffix("Request")
    return Key(method=method, request_id=request_id, digest=wire.request_digest(_without_vectors(request)))


def _without_vectors(request: Message) -> Message:
    """What a repeat is known by: whoever tries again may have embedded again, and providers round differently."""
    if isinstance(request, memory_service_pb2.StoreMemoriesRequest):
        batch = memory_service_pb2.StoreMemoriesRequest()
        batch.CopyFrom(request)
        for new in batch.memories:
            new.ClearField("embedding")
        return batch
    if isinstance(request, memory_service_pb2.UpdateMemoryRequest):
        update = memory_service_pb2.UpdateMemoryRequest()
        update.CopyFrom(request)
        update.ClearField("embedding")
        return update
    return request
