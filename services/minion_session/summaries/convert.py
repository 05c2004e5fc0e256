"""Between the contract's summaries and the domain's."""

from dataclasses import dataclass
from uuid import UUID

from minion.session.v1 import session_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key

from minion_session import requests
from minion_session.messages.convert import source_from_proto
from minion_session.messages.domain import estimate_tokens
from minion_session.summaries.domain import NewSummary, Summary, SummaryPage


@dataclass(frozen=True, slots=True)
class ListRequest:
    """Which page of which session's summaries."""

    session_id: UUID
    page_size: int
    page_token: str


def save_from_proto(request: pb.SaveSummaryRequest) -> tuple[NewSummary, Key | None]:
    """Reads a summary to save."""
    violations = Violations()
    if request.last_sequence < 1:
        violations.add("last_sequence", f"must be at least 1, is {request.last_sequence}")
    first = request.first_sequence or 1
    if not 1 <= first <= max(request.last_sequence, 1):
        violations.add("first_sequence", f"must be 1 to last_sequence, is {request.first_sequence}")
    violations.between("token_count", request.token_count, minimum=0, maximum=1_000_000)
    text = violations.length("text", request.text, minimum=1, maximum=100_000)
    if text and not text.strip():
        violations.add("text", "must not be blank")
    new = NewSummary(
        session_id=violations.identifier("session_id", request.session_id),
        first_sequence=first,
        last_sequence=request.last_sequence,
        text=text,
        token_count=request.token_count or estimate_tokens(len(text.encode())),
        model=violations.length("model", request.model, maximum=200),
        source=source_from_proto(request.source, violations) if request.HasField("source") else None,
    )
    key = requests.key(violations, request)
    violations.raise_if_any()
    return new, key


def list_from_proto(request: pb.ListSummariesRequest) -> ListRequest:
    """Reads which summaries to list."""
    violations = Violations()
    session_id = violations.identifier("session_id", request.session_id)
    size = requests.page_size(violations, request.page_size, default=20, largest=100)
    violations.raise_if_any()
    return ListRequest(session_id, size, request.page_token)


def page_to_proto(page: SummaryPage) -> pb.ListSummariesResponse:
    """Writes one page."""
    return pb.ListSummariesResponse(
        summaries=[to_proto(summary) for summary in page.summaries], next_page_token=page.next_page_token
    )


def to_proto(summary: Summary) -> session_pb2.Summary:
    """Writes a summary."""
    return session_pb2.Summary(
        summary_id=str(summary.summary_id),
        session_id=str(summary.session_id),
        first_sequence=summary.first_sequence,
        last_sequence=summary.last_sequence,
        text=summary.text,
        token_count=summary.token_count,
        model=summary.model,
        run_id=wire.optional_text(summary.run_id),
        create_time=wire.to_timestamp(summary.create_time),
    )
