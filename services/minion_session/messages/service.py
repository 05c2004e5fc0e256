"""What callers do with messages, and how a run's turn begins and ends."""

from uuid import UUID

from minion_auth import tenant
from minion_postgres import Key, pages

from minion_session.callers import only_services
from minion_session.contexts.domain import BegunTurn, Limits, too_small
from minion_session.contexts.service import cut
from minion_session.messages.domain import Append, Appended, MessagePage, MessageQuery, Turn
from minion_session.messages.store import MessageStore


class Messages:
    """The messages of sessions, in the caller's tenant."""

    def __init__(self, store: MessageStore) -> None:
        self._store = store

    async def append(self, append: Append, key: Key | None) -> Appended:
        """Appends a batch, whole or not at all; see `MessageStore.append` for what it raises, and

        Raises:
            PermissionDenied: the batch names a run's step, and the caller is no service (`PERMISSION_MISSING`).
        """
        if append.source is not None:
            only_services()
        return await self._store.append(tenant(), append, key)

    async def list(self, query: MessageQuery, *, page_size: int, page_token: str) -> MessagePage:
        """Lists messages by sequence.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`).
            InvalidArgument: the token is not of this list (`PAGE_TOKEN_INVALID`).
        """
        filters = {
            "session_id": str(query.session_id),
            "after_sequence": query.after_sequence,
            "descending": query.descending,
        }
        after = query.after_sequence
        if page_token:
            (decoded,) = pages.decode(page_token, filters, (int,))
            assert isinstance(decoded, int)
            after = decoded
        messages, more = await self._store.list(tenant(), query, after=after, page_size=page_size)
        return MessagePage(messages, pages.encode((messages[-1].sequence,), filters) if more else "")

    async def begin_turn(self, turn: Turn) -> BegunTurn:
        """Appends the user's message for a run and gives what the model is to be shown.

        Raises:
            InvalidArgument: the message alone takes more than the budget (`CONTEXT_BUDGET_TOO_SMALL`).

        See `MessageStore.begin_turn` for the rest.
        """
        if turn.message.token_count > turn.token_budget:
            raise too_small(turn.token_budget, {"token_count": str(turn.message.token_count)})
        begun = await self._store.begin_turn(tenant(), turn)
        # A repeat may find another message stored, and refuse it here.
        context = await cut(begun, Limits(turn.token_budget, turn.max_messages))
        return BegunTurn(begun.session, begun.messages[-1], context)

    async def end_turn(self, session_id: UUID, run_id: UUID) -> None:
        """Releases a run's hold; one that it hasn't is nothing to release.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`).
        """
        await self._store.end_turn(tenant(), session_id, run_id)
