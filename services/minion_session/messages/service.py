"""What callers do with messages, and how a run's turn begins and ends."""

from collections.abc import Mapping
from uuid import UUID

from minion_auth import CallerKind, caller, tenant
from minion_auth.authenticator import DEVELOPMENT_IDENTITY
from minion_errors import InvalidArgument, PermissionDenied, Violation
from minion_postgres import Key, pages

from minion_session.messages.domain import Append, Appended, BegunTurn, MessagePage, MessageQuery, Turn, context
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
            _only_services()
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
            raise _too_small(turn, {"token_count": str(turn.message.token_count)})
        window = await self._store.begin_turn(tenant(), turn)
        if not window.newest:
            # A repeat: what its step stored is another message, which doesn't fit.
            raise _too_small(turn, {})
        message = window.newest[0]
        shown = context(window.newest[::-1], token_budget=turn.token_budget, max_messages=turn.max_messages)
        return BegunTurn(
            session=window.session,
            message=message,
            context=shown,
            context_token_count=sum(shown_message.token_count for shown_message in shown),
            truncated=len(shown) < message.sequence,
        )

    async def end_turn(self, session_id: UUID, run_id: UUID) -> None:
        """Releases a run's hold; one that it hasn't is nothing to release.

        Raises:
            NotFound: there is no such session (`SESSION_NOT_FOUND`).
        """
        await self._store.end_turn(tenant(), session_id, run_id)


def _too_small(turn: Turn, known: Mapping[str, str]) -> InvalidArgument:
    return InvalidArgument(
        "The message alone takes more than the budget.",
        reason="CONTEXT_BUDGET_TOO_SMALL",
        metadata={**known, "token_budget": str(turn.token_budget)},
        violations=[Violation("token_budget", "must be at least what the message takes")],
    )


def _only_services() -> None:
    identity = caller()
    # Where authentication is switched off, everybody may do everything.
    if identity.kind is not CallerKind.SERVICE and identity != DEVELOPMENT_IDENTITY:
        raise PermissionDenied(
            "Services alone may append for a run.",
            reason="PERMISSION_MISSING",
            metadata={"permission": "sessions.append_for_run", "principal": identity.principal},
        )
