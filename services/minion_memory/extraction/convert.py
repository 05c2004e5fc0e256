"""Between the contract's extraction and the domain's; checks the shape of requests."""

from typing import Any
from uuid import UUID

from minion.memory.v1 import extraction_pb2, memory_service_pb2
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key

from minion_memory.extraction.domain import (
    MOST_MESSAGES,
    Extracted,
    ExtractionOutcome,
    Job,
    JobFilters,
    JobState,
    Stretch,
    Trigger,
)
from minion_memory.memories.convert import memory_to_proto

_DEFAULT_PAGE, _LARGEST_PAGE = 50, 500
_STATES = {getattr(extraction_pb2, f"EXTRACTION_STATE_{state.name}"): state for state in JobState}
_STATES_TO_PROTO = {state: number for number, state in _STATES.items()}
_TRIGGERS_TO_PROTO = {trigger: getattr(extraction_pb2, f"EXTRACTION_TRIGGER_{trigger.name}") for trigger in Trigger}
_OUTCOMES_TO_PROTO = {
    outcome: getattr(extraction_pb2, f"EXTRACTION_OUTCOME_{outcome.name}") for outcome in ExtractionOutcome
}


def extract_from_proto(request: memory_service_pb2.ExtractMemoriesRequest) -> tuple[Stretch, Key | None]:
    """Reads what to draw from, with what makes it repeatable."""
    violations = Violations()
    first, last = request.first_sequence, request.last_sequence
    if first < 0:
        violations.add("first_sequence", f"must not be negative, is {first}")
    if last < 0:
        violations.add("last_sequence", f"must not be negative, is {last}")
    if first > 0 and last > 0:
        if last < first:
            violations.add("last_sequence", "must not be before first_sequence")
        elif last - first >= MOST_MESSAGES:
            violations.add("last_sequence", f"must make a stretch of at most {MOST_MESSAGES} messages")
    stretch = Stretch(
        session_id=violations.identifier("session_id", request.session_id),
        extractor=violations.length("extractor", request.extractor, maximum=63),
        first_sequence=first,
        last_sequence=last,
    )
    key = _key(request, violations)
    violations.raise_if_any()
    return stretch, key


def list_from_proto(request: memory_service_pb2.ListExtractionJobsRequest) -> tuple[JobFilters, int]:
    """Reads the filters and the size of a page."""
    violations = Violations()
    state = _STATES.get(request.state)
    if request.state and state is None:
        violations.add("state", "must be PENDING, RUNNING, DONE or FAILED")
    if request.page_size < 0:
        violations.add("page_size", f"must not be negative, is {request.page_size}")
    filters = JobFilters(session_id=violations.optional_identifier("session_id", request.session_id), state=state)
    violations.raise_if_any()
    return filters, min(request.page_size or _DEFAULT_PAGE, _LARGEST_PAGE)


def retry_from_proto(request: memory_service_pb2.RetryExtractionJobRequest) -> tuple[UUID, Key | None]:
    """Reads which job is to be run again, with what makes it repeatable."""
    violations = Violations()
    job_id = violations.identifier("job_id", request.job_id)
    key = _key(request, violations)
    violations.raise_if_any()
    return job_id, key


def extracted_to_proto(extracted: Extracted) -> memory_service_pb2.ExtractMemoriesResponse:
    """Writes what an extraction came to."""
    return memory_service_pb2.ExtractMemoriesResponse(
        job=job_to_proto(extracted.job),
        results=[
            extraction_pb2.ExtractionResult(
                memory=memory_to_proto(result.memory), outcome=_OUTCOMES_TO_PROTO[result.outcome], reason=result.reason
            )
            for result in extracted.results
        ],
    )


def job_to_proto(job: Job) -> extraction_pb2.ExtractionJob:
    """Writes a job."""
    return extraction_pb2.ExtractionJob(
        job_id=str(job.job_id),
        session_id=str(job.session_id),
        agent_id=str(job.agent_id),
        user_id=job.user_id,
        extractor=job.extractor,
        trigger=_TRIGGERS_TO_PROTO[job.trigger],
        state=_STATES_TO_PROTO[job.state],
        first_sequence=job.first_sequence,
        last_sequence=job.last_sequence,
        attempt_count=job.attempt_count,
        error=job.error,
        created_count=job.created_count,
        updated_count=job.updated_count,
        deleted_count=job.deleted_count,
        unchanged_count=job.unchanged_count,
        refused_count=job.refused_count,
        create_time=wire.to_timestamp(job.create_time),
        update_time=wire.to_timestamp(job.update_time),
    )


def _key(request: Any, violations: Violations) -> Key | None:
    request_id = violations.optional_identifier("request_id", request.request_id)
    if request_id is None:
        return None
    method = str(request.DESCRIPTOR.name).removesuffix("Request")
    return Key(method=method, request_id=request_id, digest=wire.request_digest(request))
