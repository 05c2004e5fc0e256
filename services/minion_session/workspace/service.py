"""What callers do with working memory."""

from minion_auth import tenant
from minion_postgres import Key

from minion_session.workspace.domain import Changes, Entry, Keys
from minion_session.workspace.store import WorkspaceStore


class Workspace:
    """The working memory of sessions, in the caller's tenant; see WorkspaceStore for what the methods raise."""

    def __init__(self, store: WorkspaceStore) -> None:
        self._store = store

    async def get(self, wanted: Keys) -> tuple[Entry, ...]:
        """Gives the entries of these keys, or all when there are no keys."""
        return await self._store.get(tenant(), wanted)

    async def set(self, changes: Changes, key: Key | None) -> tuple[Entry, ...]:
        """Sets values, all or none."""
        return await self._store.set(tenant(), changes, key)

    async def delete(self, wanted: Keys, key: Key | None) -> int:
        """Deletes entries and tells how many were there."""
        return await self._store.delete(tenant(), wanted, key)
