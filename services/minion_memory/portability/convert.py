"""Between the contract's streams and the domain's; checks the shape of requests."""

from dataclasses import replace

from minion.memory.v1 import memory_pb2, memory_service_pb2
from minion_errors import Violations
from minion_grpc import wire

from minion_memory.memories.convert import memory_to_proto, new_memory_from_proto
from minion_memory.memories.domain import NewMemory
from minion_memory.portability.domain import Exported, Imported, Selection


def export_from_proto(request: memory_service_pb2.ExportMemoriesRequest) -> Selection:
    """Reads which memories are wanted."""
    violations = Violations()
    selection = Selection(
        agent_id=violations.optional_identifier("agent_id", request.agent_id),
        user_id=violations.length("user_id", request.user_id, maximum=200) or None,
        include_vectors=request.include_vectors,
    )
    violations.raise_if_any()
    return selection


def exported_to_proto(exported: Exported) -> memory_service_pb2.ExportMemoriesResponse:
    """Writes a memory on its way out."""
    embedding = exported.embedding
    return memory_service_pb2.ExportMemoriesResponse(
        memory=memory_service_pb2.NewMemory(
            memory=memory_to_proto(exported.memory),
            embedding=memory_pb2.Embedding(model=embedding.model, values=embedding.values) if embedding else None,
        )
    )


def import_from_proto(request: memory_service_pb2.ImportMemoriesRequest, index: int) -> NewMemory:
    """Reads a memory on its way in, the stream's `index`th; it keeps when it was made, and what took its place."""
    violations = Violations()
    field = f"memories[{index}]"
    new, given = new_memory_from_proto(request.memory, field, violations), request.memory.memory
    create_time = None
    if given.HasField("create_time"):
        create_time = wire.from_timestamp(given.create_time, f"{field}.memory.create_time", violations)
    superseded_by = violations.optional_identifier(f"{field}.memory.superseded_by", given.superseded_by)
    violations.raise_if_any()
    return replace(new, create_time=create_time, superseded_by=superseded_by)


def imported_to_proto(imported: Imported) -> memory_service_pb2.ImportMemoriesResponse:
    """Writes how many came in."""
    return memory_service_pb2.ImportMemoriesResponse(
        created_count=imported.created_count,
        updated_count=imported.updated_count,
        unchanged_count=imported.unchanged_count,
    )
