"""Rows of tenants."""

import asyncpg
from minion_errors import AlreadyExists
from minion_postgres import Transaction, queries

from minion_registry.tenants.domain import NewTenant, Tenant

_QUERIES = queries.load(__package__)


class TenantStore:
    """Reads and writes tenants."""

    async def create(self, transaction: Transaction, tenant: NewTenant) -> Tenant:
        """Raises AlreadyExists (TENANT_NAME_TAKEN) when another tenant has the name or id."""
        try:
            row = await transaction.fetch_one(
                _QUERIES.create_tenant, tenant.tenant_id, tenant.name, tenant.display_name
            )
        except asyncpg.UniqueViolationError as error:
            raise AlreadyExists(
                "Another tenant has this name or id.", reason="TENANT_NAME_TAKEN", metadata={"name": tenant.name}
            ) from error
        assert row is not None
        return Tenant(row["tenant_id"], row["name"], row["display_name"], row["create_time"])
