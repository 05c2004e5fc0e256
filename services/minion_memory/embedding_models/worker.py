"""What goes on beside the calls: making room for new models' vectors, and removing the vectors of models left."""

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from uuid import UUID

import structlog
from minion_errors import MinionError

from minion_memory.embedding_models.store import EmbeddingModelStore, InstallStore, Sweep

_log = structlog.get_logger()
_SWEEPS_A_LOOK = 10
_MEMORIES_A_SWEEP = 500
_HOLD = timedelta(seconds=60)


class Installer:
    """Makes partition and index of models that were registered, as the owner: the service's own role may not.

    `connect` opens the owner's database for a block, and is called only where there is a model to install.
    """

    def __init__(
        self,
        store: EmbeddingModelStore,
        connect: Callable[[], AbstractAsyncContextManager[InstallStore]],
        *,
        seconds: float,
    ) -> None:
        self._store = store
        self._connect = connect
        self._seconds = seconds

    async def run(self) -> None:
        """Looks again and again; of several replicas one makes what is missing."""
        while True:
            try:
                if any(not found.ready for found in await self._store.all()):
                    async with self._connect() as owner:
                        installed = await owner.install()
                    if installed:
                        _log.info("installed embedding models", models=list(installed))
            except MinionError as fault:
                # Somebody holds the table, or the database is away: the next look tries again.
                _log.warning("embedding models can't be installed now", reason=fault.reason, error=fault.message)
            await asyncio.sleep(self._seconds)


async def warn_of_missing_owner() -> None:
    """Says once that nobody here installs models."""
    _log.warning(
        "embedding models that are registered stay INSTALLING until `minion embeddings install` is run",
        setting="MINION_MEMORY_OWNER_DATABASE_URL",
    )


class Sweeper:
    """Removes the vectors of the models that tenants have left, some memories at a time; any replica may."""

    def __init__(self, store: EmbeddingModelStore, *, poll_seconds: float) -> None:
        self._store = store
        self._poll_seconds = poll_seconds

    async def run(self) -> None:
        """Sweeps, for ever."""
        while True:
            # Replicas in step would leave all the work to the one that is a moment ahead.
            await asyncio.sleep(self._poll_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            try:
                for sweep in await self._store.claim_sweeps(_SWEEPS_A_LOOK, _HOLD):
                    await self.sweep(sweep)
            except MinionError as fault:
                _log.warning("old vectors can't be removed now", reason=fault.reason, error=fault.message)

    async def sweep(self, sweep: Sweep) -> None:
        """Sweeps one tenant."""
        after: UUID | None = UUID(int=0)
        while after is not None:
            after = await self._store.sweep(sweep, after, _MEMORIES_A_SWEEP, _HOLD)
