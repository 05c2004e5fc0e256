"""Clean-ups in Postgres, whose clock counts."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from minion_postgres import Database, queries

from minion_session.expiry.domain import Cleaned

_QUERIES = queries.load(__package__)


class ExpiryStore:
    """Tells of sessions that expired and deletes those that did long ago; `kept` None deletes none."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def clean(self, tenant_id: UUID, most: int, kept: timedelta | None) -> Cleaned:
        """Cleans up in a tenant, at most so many sessions of each kind."""
        async with self._database.transaction(tenant_id) as transaction:
            row = await transaction.fetch_one(_QUERIES.cleanup_expired_sessions, most, kept)
        assert row is not None
        return Cleaned(row["expired"], row["deleted"])

    async def tenants(self, most: int, kept: timedelta | None) -> Sequence[UUID]:
        """Gives tenants in which there is something to clean up, as far as the first `most` sessions tell."""
        return [row["tenant_id"] for row in await self._database.fetch(_QUERIES.tenants_to_clean, kept, most)]
