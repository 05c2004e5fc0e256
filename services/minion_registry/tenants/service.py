"""What operators do with tenants."""

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from minion_auth.authenticator import DEVELOPMENT_IDENTITY
from minion_errors import AlreadyExists
from minion_postgres import Database, Idempotent, Key, pages

from minion_registry.tenants.domain import NewTenant, Tenant, TenantName, TenantStatus
from minion_registry.tenants.store import TenantStore

# Operators' requests that concern no tenant are remembered under the nil UUID, which is nobody's.
_NO_TENANT = UUID(int=0)
_KEPT = Idempotent(Tenant, schema="registry")


class Tenants:
    """Keeps the tenants."""

    def __init__(self, database: Database, store: TenantStore) -> None:
        self._database = database
        self._store = store

    async def create(self, tenant: NewTenant, key: Key | None) -> Tenant:
        """Creates a tenant. Raises AlreadyExists (TENANT_NAME_TAKEN)."""
        async with self._database.transaction(_NO_TENANT) as transaction:
            return await _KEPT.once(transaction, key, lambda: self._store.create(transaction, tenant))

    async def get(self, named: TenantName) -> Tenant:
        """Returns a tenant. Raises NotFound (TENANT_NOT_FOUND)."""
        return await self._store.get(named)

    async def page(self, status: TenantStatus | None, size: int, token: str) -> tuple[Sequence[Tenant], str]:
        """Returns a page of tenants by name, and the token of the next one, empty after the last.

        Raises InvalidArgument (PAGE_TOKEN_INVALID).
        """
        filters = {"list": "tenants", "status": status.value if status else None}
        after = pages.decode(token, filters, (str,))[0] if token else ""
        found = await self._store.page(status, str(after), size + 1)
        return found[:size], pages.encode((found[size - 1].name,), filters) if len(found) > size else ""

    async def suspend(self, tenant_id: UUID, reason: str, key: Key | None) -> Tenant:
        """Has every service refuse a tenant's keys and JWTs. Raises NotFound (TENANT_NOT_FOUND)."""
        async with self._database.transaction(_NO_TENANT) as transaction:
            return await _KEPT.once(transaction, key, lambda: self._store.suspend(transaction, tenant_id, reason))

    async def resume(self, tenant_id: UUID, key: Key | None) -> Tenant:
        """Lets a suspended tenant's credentials work again. Raises NotFound (TENANT_NOT_FOUND)."""
        async with self._database.transaction(_NO_TENANT) as transaction:
            return await _KEPT.once(transaction, key, lambda: self._store.resume(transaction, tenant_id))

    async def ensure_development_tenant(self) -> None:
        """Creates the tenant of everybody where authentication is switched off, unless it is there."""
        tenant_id = DEVELOPMENT_IDENTITY.tenant_id
        assert tenant_id is not None
        with suppress(AlreadyExists):
            await self.create(NewTenant(tenant_id, "development", "Development"), None)
