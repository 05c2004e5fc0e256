"""What a deployment decides about the memory service."""

from datetime import timedelta
from typing import ClassVar

from minion_grpc.settings import ServerSettings
from minion_postgres import DatabaseSettings
from minion_settings import Address
from pydantic import Field

from minion_memory.extraction.settings import ExtractionSettings
from minion_memory.memories.domain import MemoryType
from minion_memory.subjects.domain import Retention


class MemorySettings(ServerSettings, DatabaseSettings, ExtractionSettings):
    """The memory service."""

    service: ClassVar[str] = "memory"

    port: int = Field(default=50053, ge=0, le=65_535, description="Port of the gRPC server; 0 picks a free one.")
    operations_port: int = Field(
        default=9053, ge=0, le=65_535, description="Port of /metrics, /healthz and /readyz; 0 picks a free one."
    )
    gateway_address: Address = Field(
        default="localhost:50050", description="Where the gateway answers, which embeds texts."
    )
    default_embedding_model: str = Field(
        default="local/all-minilm-l6-v2",
        pattern=r"^[^/\s]+/\S+$",
        description="The embedding model used when none is named, as provider/model.",
    )
    embed_seconds: float = Field(
        default=10.0,
        gt=0,
        le=600,
        description="Seconds that embedding may take; then texts are stored without, to be embedded later.",
    )
    exact_search_limit: int = Field(
        default=20_000,
        ge=0,
        le=2_147_483_647,
        description="Memories of one agent and user (of the types asked for) up to which a search compares all; above, "
        "it may walk the HNSW index.",
    )
    walk_candidates: int = Field(
        default=120,
        ge=10,
        le=1_000,
        description="Candidates that a walk of an index holds (hnsw.ef_search) where all of it is the scope's; more "
        "where a part is. More miss less, and cost time.",
    )
    walk_limit: int = Field(
        default=20_000,
        ge=1_000,
        le=2_147_483_647,
        description="Vectors that an index walk visits at most (hnsw.max_scan_tuples).",
    )
    access_write_seconds: float = Field(
        default=5.0,
        gt=0,
        le=3_600,
        description="Seconds between two writes of which memories searches brought.",
    )
    model_install_seconds: float = Field(
        default=5.0,
        ge=0.05,
        le=86_400,
        description="Seconds between two looks for registered embedding models that have no index yet.",
    )
    embedding_poll_seconds: float = Field(
        default=1.0,
        ge=0.05,
        le=3_600,
        description="Seconds between two looks for memories without a vector, and for re-embeddings.",
    )
    reembedding_lease_seconds: float = Field(
        default=90.0,
        ge=1,
        le=3_600,
        description="Seconds after which another replica goes on with the re-embedding of one that died.",
    )
    fact_kept: float | None = Field(
        default=None, gt=0, le=36_500, description="Days that a FACT is kept after its last change."
    )
    preference_kept: float | None = Field(
        default=None, gt=0, le=36_500, description="Days that a PREFERENCE is kept after its last change."
    )
    context_kept: float | None = Field(
        default=None,
        gt=0,
        le=36_500,
        description="Days that a CONTEXT is kept after its last change; unset means for ever.",
    )
    skill_kept: float | None = Field(
        default=None, gt=0, le=36_500, description="Days that a SKILL is kept after its last change."
    )
    prune_seconds: float = Field(
        default=3_600.0,
        gt=0,
        le=86_400,
        description="Seconds between two looks for memories that were kept for long enough.",
    )

    @property
    def retention(self) -> Retention:
        """For how long memories of each type are kept."""
        days = {kind: getattr(self, f"{kind.value}_kept") for kind in MemoryType}
        return Retention({kind: timedelta(days=kept) for kind, kept in days.items() if kept is not None})
