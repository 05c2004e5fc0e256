"""Between the contract's re-embeddings and ours."""

from uuid import UUID

from minion.memory.v1 import embedding_model_pb2
from minion.memory.v1 import embedding_model_service_pb2 as pb
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key

from minion_memory.reembedding.domain import Reembedding, ReembeddingState

_STATES_TO_PROTO = {
    state: getattr(embedding_model_pb2, f"REEMBEDDING_STATE_{state.name}") for state in ReembeddingState
}


def reembed_from_proto(request: pb.ReembedMemoriesRequest) -> tuple[str, Key | None]:
    """Reads which model memories move to, with what makes it repeatable. Raises InvalidArgument with all faults."""
    violations = Violations()
    to_model = violations.length("to_model", request.to_model, minimum=1, maximum=200)
    request_id = violations.optional_identifier("request_id", request.request_id)
    violations.raise_if_any()
    if request_id is None:
        return to_model, None
    return to_model, Key(method="ReembedMemories", request_id=request_id, digest=wire.request_digest(request))


def reembedding_id_from_proto(request: pb.GetReembeddingRequest) -> UUID:
    """Reads which move is meant. Raises InvalidArgument."""
    violations = Violations()
    reembedding_id = violations.identifier("reembedding_id", request.reembedding_id)
    violations.raise_if_any()
    return reembedding_id


def reembedding_to_proto(reembedding: Reembedding) -> embedding_model_pb2.Reembedding:
    """Writes a move."""
    return embedding_model_pb2.Reembedding(
        reembedding_id=str(reembedding.reembedding_id),
        from_model=reembedding.from_model,
        to_model=reembedding.to_model,
        state=_STATES_TO_PROTO[reembedding.state],
        memory_count=reembedding.memory_count,
        done_count=reembedding.done_count,
        error=reembedding.error,
        create_time=wire.to_timestamp(reembedding.create_time),
        update_time=wire.to_timestamp(reembedding.update_time),
    )
