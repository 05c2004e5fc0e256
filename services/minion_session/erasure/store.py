"""Erasures in Postgres."""

from uuid import UUID

from minion_postgres import Database, queries

from minion_session.erasure.domain import Erased

_QUERIES = queries.load(__package__)


class ErasureStore:
    """Erases users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def erase(self, tenant_id: UUID, user_id: str, most: int) -> tuple[Erased, bool]:
        """Deletes about `most` messages of a user with their sessions; tells too whether that was the last."""
        row = await self._database.fetch_one(_QUERIES.erase_subject, tenant_id, user_id, most)
        assert row is not None
        erased = Erased(
            erase_time=row["erase_time"],
            sessions=row["sessions"],
            messages=row["messages"],
            blobs=row["blobs"],
            summaries=row["summaries"],
            workspace_entries=row["entries"],
            stored_replies=row["replies"],
        )
        return erased, row["is_done"]
