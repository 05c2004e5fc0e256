"""What contexts are cut from, in Postgres: one function and one round trip."""

from uuid import UUID

from minion_postgres import Database, queries

from minion_session.contexts.domain import ContextQuery
from minion_session.messages.store import Window, window_from_rows
from minion_session.sessions.domain import not_found
from minion_session.sessions.store import PAGE_BYTES

_QUERIES = queries.load(__package__)


class ContextStore:
    """Reads windows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def window(self, tenant_id: UUID, wanted: ContextQuery) -> Window:
        """Reads the newest messages within limits, with the summary.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`).
        """
        rows = await self._database.fetch(
            _QUERIES.get_context,
            tenant_id,
            wanted.session_id,
            wanted.limits.token_budget,
            wanted.limits.max_messages,
            PAGE_BYTES,
        )
        if rows[0]["outcome"] != "OK":
            raise not_found(wanted.session_id)
        return window_from_rows(rows)
