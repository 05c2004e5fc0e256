"""What goes on beside the calls: dropping blobs that never came whole."""

import asyncio
from datetime import timedelta

from minion_session.blobs.store import BlobStore

_BATCH = 100


class UploadsLeft:
    """Drops blobs that are on their way in and haven't moved for long: a replica died with their calls."""

    def __init__(self, store: BlobStore, *, kept_seconds: float) -> None:
        self._store = store
        self._age = timedelta(seconds=kept_seconds)

    async def run(self) -> None:
        """Drops them again and again; any replica may."""
        while True:
            await self.drop_all()
            await asyncio.sleep(self._age.total_seconds() / 4)

    async def drop_all(self) -> int:
        """Drops all that are left now; says how many."""
        dropped = 0
        while True:
            left = await self._store.left(self._age, _BATCH)
            for tenant_id, blob_id in left:
                dropped += await self._store.drop_left(tenant_id, blob_id, self._age)
            if len(left) < _BATCH:
                return dropped
