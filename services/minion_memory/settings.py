"""What a deployment decides about the memory service."""

from typing import ClassVar

from minion_grpc.settings import ServerSettings
from minion_postgres import DatabaseSettings
from pydantic import Field

from minion_memory.extraction.settings import ExtractionSettings


class MemorySettings(ServerSettings, DatabaseSettings, ExtractionSettings):
    """The memory service."""

    service: ClassVar[str] = "memory"

    port: int = Field(default=50053, ge=0, le=65_535, description="Port of the gRPC server; 0 picks a free one.")
    operations_port: int = Field(
        default=9053, ge=0, le=65_535, description="Port of /metrics, /healthz and /readyz; 0 picks a free one."
    )
    gateway_address: str = Field(
        default="localhost:50050", min_length=1, description="Where the gateway answers, which embeds texts."
    )
    default_embedding_model: str = Field(
        default="local/all-minilm-l6-v2",
        min_length=1,
        description="The embedding model used when none is named, as provider/model.",
    )
    exact_search_limit: int = Field(
        default=20_000,
        ge=0,
        description="Memories of one agent and user (of the types asked for) up to which a search compares all; above, "
        "it may walk the HNSW index.",
    )
    walk_candidates: int = Field(
        default=80,
        ge=10,
        le=1_000,
        description="Candidates that an index walk holds (hnsw.ef_search): more of them miss less, and cost time.",
    )
    walk_limit: int = Field(
        default=20_000,
        ge=1_000,
        description="Vectors that an index walk visits at most (hnsw.max_scan_tuples).",
    )
