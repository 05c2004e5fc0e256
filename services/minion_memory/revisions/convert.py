"""Between the contract's revisions and the domain's; checks the shape of requests."""

from uuid import UUID

from minion.memory.v1 import memory_pb2, memory_service_pb2
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key

from minion_memory.memories.convert import key_from_proto, memory_to_proto
from minion_memory.memories.domain import Cause
from minion_memory.revisions.domain import Revision, RevisionPage, Rollback

_DEFAULT_PAGE, _LARGEST_PAGE = 20, 100
_LARGEST_REVISION = 2**63 - 1
_CAUSES_TO_PROTO = {cause: getattr(memory_pb2, f"REVISION_CAUSE_{cause.name}") for cause in Cause}


def list_from_proto(request: memory_service_pb2.ListMemoryRevisionsRequest) -> tuple[UUID, int]:
    """Reads which memory is meant, and the size of a page."""
    violations = Violations()
    memory_id = violations.identifier("memory_id", request.memory_id)
    if request.page_size < 0:
        violations.add("page_size", f"must not be negative, is {request.page_size}")
    violations.raise_if_any()
    return memory_id, min(request.page_size or _DEFAULT_PAGE, _LARGEST_PAGE)


def rollback_from_proto(request: memory_service_pb2.RollbackMemoryRequest) -> tuple[Rollback, Key | None]:
    """Reads which memory is to be put back, and into which state, with what makes it repeatable."""
    violations = Violations()
    memory_id = violations.identifier("memory_id", request.memory_id)
    violations.between("revision", request.revision, minimum=1, maximum=_LARGEST_REVISION)
    key = key_from_proto(request, violations)
    violations.raise_if_any()
    return Rollback(memory_id, request.revision, request.etag), key


def page_to_proto(page: RevisionPage) -> list[memory_pb2.MemoryRevision]:
    """Writes a page of states."""
    return [_revision_to_proto(revision) for revision in page.revisions]


def _revision_to_proto(revision: Revision) -> memory_pb2.MemoryRevision:
    return memory_pb2.MemoryRevision(
        memory=memory_to_proto(revision.memory),
        cause=_CAUSES_TO_PROTO[revision.cause],
        reason=revision.reason,
        principal=revision.principal,
        create_time=wire.to_timestamp(revision.memory.update_time),
    )
