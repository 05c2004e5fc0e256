"""What operators do with tenants."""

from contextlib import suppress
from uuid import UUID

from minion_auth.authenticator import DEVELOPMENT_IDENTITY
from minion_errors import AlreadyExists
from minion_postgres import Database, Idempotent, Key

from minion_registry.tenants.domain import NewTenant, Tenant
from minion_registry.tenants.store import TenantStore

# Operators' requests that concern no tenant are remembered under the nil UUID, which is nobody's.
_NO_TENANT = UUID(int=0)
_CREATED = Idempotent(Tenant, schema="registry")


class Tenants:
    """Keeps the tenants."""

    def __init__(self, database: Database, store: TenantStore) -> None:
        self._database = database
        self._store = store

    async def create(self, tenant: NewTenant, key: Key | None) -> Tenant:
        """Creates a tenant. Raises AlreadyExists (TENANT_NAME_TAKEN)."""
        async with self._database.transaction(_NO_TENANT) as transaction:
            return await _CREATED.once(transaction, key, lambda: self._store.create(transaction, tenant))

    async def ensure_development_tenant(self) -> None:
        """Creates the tenant of everybody where authentication is switched off, unless it is there."""
        tenant_id = DEVELOPMENT_IDENTITY.tenant_id
        assert tenant_id is not None
        with suppress(AlreadyExists):
            await self.create(NewTenant(tenant_id, "development", "Development"), None)
