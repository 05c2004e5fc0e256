"""What callers do with summaries."""

from uuid import UUID

from minion_auth import tenant
from minion_postgres import Idempotent, Key, pages

from minion_session.callers import only_services
from minion_session.summaries.domain import NewSummary, SavedPlace, Summary, SummaryPage
from minion_session.summaries.store import SummaryStore

_ONCE = Idempotent(SavedPlace, schema="session")


class Summaries:
    """The summaries of sessions, in the caller's tenant."""

    def __init__(self, store: SummaryStore) -> None:
        self._store = store

    async def save(self, new: NewSummary, key: Key | None) -> Summary:
        """Saves a summary; see `SummaryStore.save` for what it raises, and

        Raises:
            PermissionDenied: it names a run's step, and the caller is no service (`PERMISSION_MISSING`).
        """
        if new.source is not None:
            only_services()
        async with self._store.transaction(tenant()) as transaction:
            saved = await _ONCE.once(transaction, key, lambda: self._store.save(transaction, new))
            return await self._store.at(transaction, saved)

    async def list(self, session_id: UUID, *, page_size: int, page_token: str) -> SummaryPage:
        """Lists a session's summaries, newest first.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`).
            InvalidArgument: the token is not of this list (`PAGE_TOKEN_INVALID`).
        """
        filters = {"session_id": str(session_id)}
        before = None
        if page_token:
            (decoded,) = pages.decode(page_token, filters, (int,))
            assert isinstance(decoded, int)
            before = decoded
        async with self._store.transaction(tenant()) as transaction:
            summaries, more = await self._store.list(transaction, session_id, before=before, page_size=page_size)
        return SummaryPage(summaries, pages.encode((more,), filters) if more else "")
