"""Searches in Postgres."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any
from uuid import UUID

from minion_postgres import Database, queries

from minion_memory.embedding_models.domain import EmbeddingModel
from minion_memory.memories.store import REPLY_BYTES, memory_of, packed
from minion_memory.retrieval.domain import HALF_LIFE, WEIGHTS, Found, Hit, Plan, Search, Shares, signs

_QUERIES = queries.load(__package__)
_PLANS = {plan.value: plan for plan in Plan}
# Up to so many memories a scope is weighed whole: choosing candidates first would cost more.
_WHOLE_SCOPE = 200
_WEIGHTS = list(astuple(WEIGHTS))
_HALF_LIFE = f"{HALF_LIFE.total_seconds():.0f} seconds"


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """How searches are planned; see the settings of these names."""

    exact_search_limit: int
    walk_candidates: int
    walk_limit: int


class RetrievalStore:
    """Finds memories, each search in one round trip."""

    def __init__(self, database: Database, limits: SearchLimits) -> None:
        self._database = database
        self._limits = limits

    async def named_speakers(self, tenant_id: UUID, search: Search) -> Sequence[str]:
        """Gives the names by which a query calls those who spoke in its scope."""
        rows = await self._database.fetch(
            _QUERIES.named_speakers, tenant_id, search.agent_id, search.user_id, search.query
        )
        return [row["form"] for row in rows]

    async def search(
        self, tenant_id: UUID, search: Search, model: EmbeddingModel | None, vector: Sequence[float] | None
    ) -> Found:
        """Finds the memories of a scope that fit best, less than 3 MiB of them; with no vector, by words alone.

        Raises Aborted (EMBEDDING_MODEL_MOVED) when the tenant's memories have another model's vectors by now.
        """
        rows = await self._database.fetch(
            _QUERIES.retrieve_memories,
            tenant_id,
            _wish(search),
            model.model_id if model else None,
            None if vector is None else packed(vector),
            min(_WHOLE_SCOPE, self._limits.exact_search_limit),
            self._limits.exact_search_limit,
            self._limits.walk_candidates,
            self._limits.walk_limit,
            REPLY_BYTES,
        )
        name = model.name if model else ""
        hits = tuple(
            Hit(memory_of(row, name), row["similarity"], Shares(*row["shares"]))
            for row in rows
            if row["memory_id"] is not None
        )
        return Found(hits, _PLANS[rows[0]["plan"]], rows[0]["scope_count"])

    async def note_accesses(self, tenant_id: UUID, counts: Mapping[UUID, int]) -> None:
        """Adds to how often memories were brought; those that are gone, or are going, are left out."""
        await self._database.execute(_QUERIES.note_accesses, tenant_id, list(counts), list(counts.values()))


def _wish(search: Search) -> dict[str, Any]:
    query = signs(search.query)
    return {
        "agent_id": str(search.agent_id),
        "user_id": search.user_id,
        "said": search.query,
        "asks_when": query.asks_when,
        "months": query.months,
        "years": query.years,
        "types": sorted(kind.value for kind in search.types) if search.types else None,
        "labels": dict(search.labels) or None,
        "metadata": dict(search.metadata) or None,
        "occurred_after": search.occurred_after,
        "occurred_before": search.occurred_before,
        "session_id": str(search.session_id) if search.session_id else None,
        "trusts": sorted(trust.value for trust in search.trusts) if search.trusts else None,
        "as_of": search.as_of,
        "least_similarity": search.min_similarity,
        "most": search.limit,
        "weights": _WEIGHTS,
        "half_life": _HALF_LIFE,
    }
