"""Cleaning up: in a caller's tenant, and in all of them."""

from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog
from minion_auth import tenant
from minion_errors import MinionError, Unavailable

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
        """Cleans up in all tenants, batch by batch, each in its tenant, until nothing is left but what is busy.

        A tenant in which it fails, such as by a session too large to be deleted in the time of a statement, is passed
        over until the next time: it holds up no other.
        """
        total = Cleaned()
        failed: set[UUID] = set()
        while True:
            round_ = Cleaned()
            for tenant_id in await self._store.tenants(_BATCH, self._kept):
                if tenant_id in failed:
                    continue
                try:
                    round_ += await self._store.clean(tenant_id, _BATCH, self._kept)
                except Unavailable:
                    raise
                except MinionError as fault:
                    failed.add(tenant_id)
                    structlog.get_logger().warning(
                        "sessions not cleaned up", tenant_id=str(tenant_id), reason=fault.reason, error=fault.message
                    )
                    # What can't be deleted keeps nothing from being told.
                    round_ += await self._store.clean(tenant_id, _BATCH, None)
            if round_ == Cleaned():
                return total
            total += round_
