"""Between the contract's searches and the domain's; checks the shape of requests."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Literal, TypeVar

from minion.memory.v1 import memory_pb2, memory_service_pb2
from minion_errors import Violations
from minion_grpc import wire

from minion_memory.memories.convert import set_memory
from minion_memory.memories.domain import Embedding, MemoryType, Trust
from minion_memory.retrieval.domain import Found, Hit, Plan, Search

Kind = TypeVar("Kind", bound=Enum)

_DEFAULT_LIMIT = 10
_MOST_METADATA_BYTES = 4 * 1024

_TYPES = {getattr(memory_pb2, f"MEMORY_TYPE_{kind.name}"): kind for kind in MemoryType}
_TRUSTS = {getattr(memory_pb2, f"MEMORY_TRUST_{trust.name}"): trust for trust in Trust}
_PLANS_TO_PROTO = {plan: getattr(memory_pb2, f"SEARCH_PLAN_{plan.name}") for plan in Plan}


def search_from_proto(request: memory_service_pb2.SearchMemoriesRequest) -> Search:
    """Reads what to look for; whether the vector fits its model is the service's to say."""
    violations = Violations()
    embedding = _embedding(request.vector, violations) if request.HasField("vector") else None
    if not request.query and embedding is None:
        violations.add("query", "is required where no vector is given")
    min_score = request.min_score if request.HasField("min_score") else None
    if min_score is not None:
        violations.between("min_score", min_score, minimum=-1, maximum=1)
    if request.limit:
        violations.between("limit", request.limit, minimum=1, maximum=100)
    search = Search(
        agent_id=violations.identifier("agent_id", request.agent_id),
        user_id=violations.length("user_id", request.user_id, minimum=1, maximum=200),
        query=violations.length("query", request.query, maximum=8_192),
        embedding=embedding,
        types=_kinds(request.types, _TYPES, "types", "FACT, PREFERENCE, CONTEXT or SKILL", violations),
        min_similarity=min_score,
        limit=request.limit or _DEFAULT_LIMIT,
        labels=_labels(request.labels, violations),
        metadata=_metadata(request, violations),
        occurred_after=_moment(request, "occurred_after", violations),
        occurred_before=_moment(request, "occurred_before", violations),
        session_id=violations.optional_identifier("session_id", request.session_id),
        trusts=_kinds(request.trusts, _TRUSTS, "trusts", "ASSERTED, USER or TOOL", violations),
        as_of=_moment(request, "as_of", violations),
    )
    violations.raise_if_any()
    return search


def found_to_proto(found: Found) -> memory_service_pb2.SearchMemoriesResponse:
    """Writes what a search found."""
    response = memory_service_pb2.SearchMemoriesResponse(
        plan=_PLANS_TO_PROTO[found.plan], scope_count=found.scope_count
    )
    for hit in found.hits:
        _set_hit(response.hits.add(), hit)
    return response


def _set_hit(message: memory_pb2.MemoryHit, hit: Hit) -> None:
    set_memory(message.memory, hit.memory)
    shares = hit.shares
    message.score = shares.score
    if hit.similarity is not None:
        message.similarity = hit.similarity
    explanation = message.explanation
    explanation.semantic = shares.semantic
    explanation.lexical = shares.lexical
    explanation.neighborhood = shares.neighborhood
    explanation.cues = shares.cues
    explanation.recency = shares.recency
    explanation.importance = shares.importance
    explanation.access = shares.access
    explanation.trust = shares.trust


def _kinds(
    numbers: Sequence[int], known: Mapping[int, Kind], field: str, choices: str, violations: Violations
) -> frozenset[Kind]:
    if not numbers:
        return frozenset()
    for place, number in enumerate(numbers):
        if number not in known:
            violations.add(f"{field}[{place}]", f"must be {choices}")
    return frozenset(known[number] for number in numbers if number in known)


def _labels(labels: Mapping[str, str], violations: Violations) -> dict[str, str]:
    if not labels:
        return {}
    violations.count("labels", labels, maximum=8)
    for label, value in labels.items():
        violations.length(f"labels (key {label[:63]!r})", label, minimum=1, maximum=63)
        violations.length(f"labels[{label[:63]!r}]", value, maximum=63)
    return dict(labels)


def _metadata(request: memory_service_pb2.SearchMemoriesRequest, violations: Violations) -> dict[str, Any]:
    if not request.HasField("metadata"):
        return {}
    return wire.from_bounded_struct(request.metadata, "metadata", violations, maximum=_MOST_METADATA_BYTES)


def _moment(
    request: memory_service_pb2.SearchMemoriesRequest,
    name: Literal["occurred_after", "occurred_before", "as_of"],
    violations: Violations,
) -> datetime | None:
    return wire.from_timestamp(getattr(request, name), name, violations) if request.HasField(name) else None


def _embedding(embedding: memory_pb2.Embedding, violations: Violations) -> Embedding:
    violations.length("vector.model", embedding.model, minimum=1, maximum=200)
    # A plain list: numpy reads one faster, but its code, run once a call, has to be fetched from memory first.
    return Embedding(embedding.model, embedding.values[:])
