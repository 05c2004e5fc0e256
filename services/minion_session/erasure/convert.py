"""Between the contract's erasures and the domain's."""

from uuid import UUID

from minion.session.v1 import session_service_pb2 as pb
from minion_errors import Violations
from minion_grpc import wire

from minion_session.erasure.domain import Receipt


def erase_from_proto(request: pb.EraseSubjectRequest) -> tuple[str, UUID | None]:
    """Reads who is to be erased, and the erasure's id where the caller gives one."""
    violations = Violations()
    user_id = violations.length("user_id", request.user_id, minimum=1, maximum=200)
    erasure_id = violations.optional_identifier("request_id", request.request_id)
    violations.raise_if_any()
    return user_id, erasure_id


def to_proto(receipt: Receipt) -> pb.ErasureReceipt:
    """Writes a receipt."""
    erased = receipt.erased
    return pb.ErasureReceipt(
        erasure_id=str(receipt.erasure_id),
        session_count=erased.sessions,
        message_count=erased.messages,
        blob_count=erased.blobs,
        summary_count=erased.summaries,
        workspace_entry_count=erased.workspace_entries,
        stored_reply_count=erased.stored_replies,
        erase_time=wire.to_timestamp(erased.erase_time),
    )
