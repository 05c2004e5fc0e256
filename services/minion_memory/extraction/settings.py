"""What a deployment decides about extraction."""

from collections.abc import Iterator

from minion_settings import Address, Fault, Settings, relation
from pydantic import Field

from minion_memory.extraction.extractors import names


class ExtractionSettings(Settings):
    """Memories drawn from sessions."""

    session_address: Address = Field(default="localhost:50052", description="Where the session service answers.")
    follow_sessions: bool = Field(
        default=True, description="Whether sessions are followed, and drawn from as their agents' policies say."
    )
    idle_seconds: float = Field(
        default=600.0, ge=1, le=86_400, description="Silence after which a session is drawn from, in seconds."
    )
    default_extractor: str = Field(
        default="facts-1", min_length=1, max_length=63, description="The extractor used when the agent names none."
    )
    extraction_model: str = Field(
        default="",
        max_length=200,
        description="The model that extracts, as provider/model; unset means the gateway's default.",
    )
    extraction_concurrency: int = Field(
        default=4, ge=1, le=64, description="Extraction jobs that a replica works on at once."
    )
    extraction_attempts: int = Field(
        default=6, ge=1, le=100, description="Tries of an extraction job before it is given up."
    )
    extraction_retry_seconds: float = Field(
        default=5.0,
        gt=0,
        le=600,
        description="Pause before an extraction job's second try, in seconds; it doubles with each, up to 10 minutes.",
    )
    extraction_lease_seconds: float = Field(
        default=30.0, ge=1, le=600, description="How long a job stays with a replica that died, in seconds."
    )
    extraction_answer_seconds: float = Field(
        default=120.0, ge=1, le=3_600, description="Time limit for a model's answer to one question."
    )
    extraction_jobs_kept_days: int = Field(
        default=30, ge=1, le=3_650, description="How long jobs that ended are kept, in days."
    )

    @relation
    def _extractor_is_known(self) -> Iterator[Fault]:
        """Yields a default extractor that there is not."""
        if self.default_extractor not in names():
            yield Fault(self.variable("default_extractor"), f"must be one of {', '.join(names())}")
