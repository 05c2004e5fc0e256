"""Between the contract's erasures and the domain's; checks the shape of requests."""

from uuid import UUID

from minion.memory.v1 import memory_service_pb2
from minion_errors import Violations
from minion_grpc import wire
from uuid_utils.compat import uuid7

from minion_memory.subjects.domain import Receipt


def erase_from_proto(request: memory_service_pb2.EraseSubjectRequest) -> tuple[str, UUID]:
    """Reads whose data is to go, and what the erasure is called."""
    violations = Violations()
    user_id = violations.length("user_id", request.user_id, minimum=1, maximum=200)
    erasure_id = violations.optional_identifier("request_id", request.request_id) or uuid7()
    violations.raise_if_any()
    return user_id, erasure_id


def receipt_to_proto(receipt: Receipt) -> memory_service_pb2.ErasureReceipt:
    """Writes a receipt."""
    erased = receipt.erased
    return memory_service_pb2.ErasureReceipt(
        erasure_id=str(receipt.erasure_id),
        memory_count=erased.memory_count,
        vector_count=erased.vector_count,
        revision_count=erased.revision_count,
        extraction_job_count=erased.extraction_job_count,
        stored_reply_count=erased.stored_reply_count,
        erase_time=wire.to_timestamp(erased.erase_time),
    )
