"""What callers do with contexts."""

import asyncio

from minion_auth import tenant

from minion_session.contexts.domain import Context, ContextQuery, Limits, SessionContext, build
from minion_session.contexts.store import ContextStore
from minion_session.messages.store import Window

# Above it a context is cut off the event loop: 128 KiB of JSON, by our estimate.
_LARGE_TOKENS = 32_768


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
        return SessionContext(window.session, await cut(window, wanted.limits))


async def cut(window: Window, limits: Limits) -> Context:
    """Cuts a context from a window; see `build` for what it raises."""
    if sum(message.token_count for message in window.messages) <= _LARGE_TOKENS:
        return build(window.messages, limits, window.summary)
    return await asyncio.to_thread(build, window.messages, limits, window.summary)
