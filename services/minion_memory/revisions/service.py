"""What callers do with revisions."""

from contextlib import suppress
from uuid import UUID

from minion_auth import caller, tenant
from minion_errors import InvalidArgument, NotFound
from minion_postgres import Key, pages

from minion_memory.embedding_models.domain import Chosen
from minion_memory.embedding_models.service import EmbeddingModels
from minion_memory.memories.domain import Memory
from minion_memory.memories.service import Memories, not_found
from minion_memory.memories.store import MemoryStore
from minion_memory.revisions.domain import RevisionPage, Rollback
from minion_memory.revisions.store import RevisionStore


class Revisions:
    """The states that memories were in, in the caller's tenant."""

    def __init__(
        self, store: RevisionStore, memory_store: MemoryStore, memories: Memories, models: EmbeddingModels
    ) -> None:
        self._store = store
        self._memory_store = memory_store
        self._memories = memories
        self._models = models

    async def list(self, memory_id: UUID, *, page_size: int, page_token: str) -> tuple[RevisionPage, str]:
        """Lists the states of a memory, newest first, with the token of the next page (empty on the last).

        Raises:
            InvalidArgument: the token is not of this list (`PAGE_TOKEN_INVALID`).
            NotFound: there is no such memory (`MEMORY_NOT_FOUND`).
        """
        bound = {"memory_id": str(memory_id)}
        before = None
        if page_token:
            (number,) = pages.decode(page_token, bound, (int,))
            assert isinstance(number, int)
            before = number
        page = await self._store.list(tenant(), memory_id, before, page_size)
        if page is None:
            raise not_found(memory_id)
        return page, pages.encode((page.revisions[-1].memory.revision,), bound) if page.more else ""

    async def roll_back(self, rollback: Rollback, key: Key | None) -> Memory:
        """Puts a memory back into a former state; the content of then is embedded first, where it is another.

        Raises:
            NotFound: there is no such memory (`MEMORY_NOT_FOUND`), or it never was in that state
                (`REVISION_NOT_FOUND`).
            Aborted: it changed since it was read (`ETAG_MISMATCH`).
        """
        tenant_id = tenant()
        return await self._models.settled(tenant_id, lambda chosen: self._rolled_back(tenant_id, rollback, key, chosen))

    async def _rolled_back(self, tenant_id: UUID, rollback: Rollback, key: Key | None, chosen: Chosen) -> Memory:
        if key and (done := await self._memory_store.recall_change(tenant_id, key)):
            return done
        known = await self._memories.get(rollback.memory_id)
        former = await self._store.get(tenant_id, rollback.memory_id, rollback.revision)
        if former is None:
            raise _no_revision(rollback)
        model, vector = None, None
        if former.content != known.content:
            # A model that doesn't take a content keeps nobody from going back to it: it was taken before.
            with suppress(InvalidArgument):
                model, vector = await self._memories.embedded(former.content, chosen)
        memory = await self._store.roll_back(tenant_id, rollback, model, vector, caller().origin, key)
        if memory is None:
            raise not_found(rollback.memory_id)
        return memory


def _no_revision(rollback: Rollback) -> NotFound:
    return NotFound(
        "The memory never was in that revision.",
        reason="REVISION_NOT_FOUND",
        metadata={"memory_id": str(rollback.memory_id), "revision": str(rollback.revision)},
    )
