"""What operators do with tenants."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from uuid import UUID

from minion_auth.authenticator import DEVELOPMENT_IDENTITY
from minion_errors import AlreadyExists
from minion_postgres import Database, Idempotent, Key, Transaction, pages

from minion_registry.audit.domain import Entry
from minion_registry.audit.store import AuditStore
from minion_registry.tenants.domain import NewTenant, Tenant, TenantName, TenantStatus
from minion_registry.tenants.store import TenantStore

# Operators' requests that concern no tenant are remembered under the nil UUID, which is nobody's.
_NO_TENANT = UUID(int=0)
_KEPT = Idempotent(Tenant, schema="registry")


class Tenants:
    """Keeps the tenants."""

    def __init__(self, database: Database, store: TenantStore, audit: AuditStore) -> None:
        self._database = database
        self._store = store
        self._audit = audit

    async def create(self, tenant: NewTenant, key: Key | None) -> Tenant:
        """Creates a tenant. Raises AlreadyExists (TENANT_NAME_TAKEN)."""

        async def write(transaction: Transaction) -> Tenant:
            created = await self._store.create(transaction, tenant)
            await self._tell(transaction, "tenant.create", created)
            return created

        return await self._written(write, key)

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

        async def write(transaction: Transaction) -> Tenant:
            suspended, is_changed = await self._store.suspend(transaction, tenant_id, reason)
            if is_changed:
                await self._tell(transaction, "tenant.suspend", suspended, reason=suspended.suspend_reason)
            return suspended

        return await self._written(write, key)

    async def resume(self, tenant_id: UUID, key: Key | None) -> Tenant:
        """Lets a suspended tenant's credentials work again. Raises NotFound (TENANT_NOT_FOUND)."""

        async def write(transaction: Transaction) -> Tenant:
            resumed, is_changed = await self._store.resume(transaction, tenant_id)
            if is_changed:
                await self._tell(transaction, "tenant.resume", resumed)
            return resumed

        return await self._written(write, key)

    async def ensure_development_tenant(self) -> None:
        """Creates the tenant of everybody where authentication is switched off, unless it is there."""
        tenant_id = DEVELOPMENT_IDENTITY.tenant_id
        assert tenant_id is not None
        with suppress(AlreadyExists):
            await self.create(NewTenant(tenant_id, "development", "Development"), None)

    async def _written(self, write: Callable[[Transaction], Awaitable[Tenant]], key: Key | None) -> Tenant:
        async with self._database.transaction(_NO_TENANT) as transaction:
            return await _KEPT.once(transaction, key, lambda: write(transaction))

    async def _tell(self, transaction: Transaction, name: str, tenant: Tenant, **more: str) -> None:
        """Tells the tenant's own audit what was done to it."""
        entry = Entry(name, {"tenant_id": str(tenant.tenant_id), "name": tenant.name, **more})
        await self._audit.record(transaction, tenant.tenant_id, entry)
