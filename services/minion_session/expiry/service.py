"""Cleaning up: in a caller's tenant, and in all of them."""

from datetime import timedelta
from typing import Final

from minion_auth import tenant

from minion_session.expiry.domain import Cleaned
from minion_session.expiry.store import ExpiryStore

# Sessions that one transaction of the background worker takes, of each kind.
_BATCH: Final = 200


class Expiry:
    """Tells that sessions expired, each once, and deletes those that expired longer ago than they are kept."""

    def __init__(self, store: ExpiryStore, *, kept: timedelta | None) -> None:
        self._store = store
        self._kept = kept

    async def clean(self, limit: int) -> Cleaned:
        """Cleans up in the caller's tenant, at most `limit` sessions of each kind."""
        return await self._store.clean(tenant(), limit, self._kept)

    async def clean_everywhere(self) -> Cleaned:
        """Cleans up in all tenants, batch by batch, each in its tenant, until nothing is left but what is busy."""
        total = Cleaned()
        while True:
            round_ = Cleaned()
            for tenant_id in await self._store.tenants(_BATCH, self._kept):
                round_ += await self._store.clean(tenant_id, _BATCH, self._kept)
            if round_ == Cleaned():
                return total
            total += round_
