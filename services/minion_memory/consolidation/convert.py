"""Between the contract's consolidation and the domain's; checks the shape of requests."""

from minion.memory.v1 import consolidation_pb2, memory_service_pb2
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key

from minion_memory.consolidation.domain import Consolidated, Kind, Scope

_KINDS_TO_PROTO = {kind: getattr(consolidation_pb2, f"CONSOLIDATION_KIND_{kind.name}") for kind in Kind}


def scope_from_proto(request: memory_service_pb2.ConsolidateMemoriesRequest) -> tuple[Scope, Key | None]:
    """Reads whose memories are to be put in order, with what makes it repeatable."""
    violations = Violations()
    scope = Scope(
        agent_id=violations.identifier("agent_id", request.agent_id),
        user_id=violations.length("user_id", request.user_id, minimum=1, maximum=200),
        dry_run=request.dry_run,
        prune=request.prune,
    )
    request_id = violations.optional_identifier("request_id", request.request_id)
    violations.raise_if_any()
    if request_id is None:
        return scope, None
    return scope, Key("ConsolidateMemories", request_id, wire.request_digest(request))


def consolidated_to_proto(consolidated: Consolidated) -> memory_service_pb2.ConsolidateMemoriesResponse:
    """Writes what was done, or would be."""
    return memory_service_pb2.ConsolidateMemoriesResponse(
        actions=[
            consolidation_pb2.ConsolidationAction(
                kind=_KINDS_TO_PROTO[action.kind],
                memory_ids=[str(memory_id) for memory_id in action.memory_ids],
                kept_memory_id=wire.optional_text(action.kept),
                reason=action.reason,
            )
            for action in consolidated.actions
        ],
        memory_count=consolidated.memory_count,
    )
