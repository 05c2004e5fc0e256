"""What callers do with contexts."""

from minion_auth import tenant

from minion_session.contexts.domain import ContextQuery, SessionContext, build
from minion_session.contexts.store import ContextStore


class Contexts:
    """The contexts of sessions, in the caller's tenant."""

    def __init__(self, store: ContextStore) -> None:
        self._store = store

    async def get(self, wanted: ContextQuery) -> SessionContext:
        """Gives what a model is to be shown of a session.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`).
            InvalidArgument: the last message alone takes more than the budget (`CONTEXT_BUDGET_TOO_SMALL`).
        """
        window = await self._store.window(tenant(), wanted)
        return SessionContext(window.session, build(window.messages, wanted.limits, window.summary))
