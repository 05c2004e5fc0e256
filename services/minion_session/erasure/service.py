"""Erasing what is kept of a user."""

from typing import Final
from uuid import UUID

from minion_auth import tenant
from uuid_utils.compat import uuid7

from minion_session.erasure.domain import Erased, Receipt
from minion_session.erasure.store import ErasureStore

# Messages that one step deletes, about.
_STEP: Final = 10_000


class Erasure:
    """Erases users, in the caller's tenant."""

    def __init__(self, store: ErasureStore) -> None:
        self._store = store

    async def erase(self, user_id: str, erasure_id: UUID | None) -> Receipt:
        """Deletes all that is kept of a user, step by step, each a transaction; what is gone is not counted again.

        A step deletes whole sessions. Should it be cut off in between, another erasure goes on where it ended.
        """
        erased: Erased | None = None
        while True:
            step, is_done = await self._store.erase(tenant(), user_id, _STEP)
            erased = step.after(erased)
            if is_done:
                return Receipt(erasure_id or uuid7(), erased)
