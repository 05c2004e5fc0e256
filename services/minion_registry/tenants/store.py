"""Rows of tenants."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg
from minion_errors import AlreadyExists, NotFound
from minion_postgres import Database, Record, Transaction, queries

from minion_registry.tenants.domain import NewTenant, Tenant, TenantName, TenantStatus

_QUERIES = queries.load(__package__)


class TenantStore:
    """Reads and writes tenants, through functions of the owner."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        return Tenant(row["tenant_id"], row["name"], row["display_name"], row["create_time"], row["create_time"])

    async def get(self, named: TenantName) -> Tenant:
        """Raises NotFound (TENANT_NOT_FOUND)."""
        row = await self._database.fetch_one(_QUERIES.find_tenant, named.tenant_id, named.name)
        about = {"tenant_id": str(named.tenant_id)} if named.tenant_id is not None else {"name": named.name or ""}
        return _found(row, about)

    async def page(self, status: TenantStatus | None, after: str, count: int) -> Sequence[Tenant]:
        """Returns at most `count` tenants whose names come after `after`, by name."""
        wanted = None if status is None else status.value
        return [_tenant(row) for row in await self._database.fetch(_QUERIES.list_tenants, after, wanted, count)]

    async def suspend(self, transaction: Transaction, tenant_id: UUID, reason: str) -> tuple[Tenant, bool]:
        """Tells as well whether it wasn't before. Raises NotFound (TENANT_NOT_FOUND)."""
        row = await transaction.fetch_one(_QUERIES.suspend_tenant, tenant_id, reason)
        return _changed(row, tenant_id)

    async def resume(self, transaction: Transaction, tenant_id: UUID) -> tuple[Tenant, bool]:
        """Tells as well whether it was suspended. Raises NotFound (TENANT_NOT_FOUND)."""
        row = await transaction.fetch_one(_QUERIES.resume_tenant, tenant_id)
        return _changed(row, tenant_id)


def _changed(row: Record | None, tenant_id: UUID) -> tuple[Tenant, bool]:
    return _found(row, {"tenant_id": str(tenant_id)}), row is not None and bool(row["is_changed"])


def _found(row: Record | None, about: dict[str, str]) -> Tenant:
    if row is None:
        raise NotFound("There is no such tenant.", reason="TENANT_NOT_FOUND", metadata=about)
    return _tenant(row)


def _tenant(row: Record) -> Tenant:
    return Tenant(
        tenant_id=row["tenant_id"],
        name=row["name"],
        display_name=row["display_name"],
        create_time=row["create_time"],
        update_time=row["updated_at"],
        status=TenantStatus(row["status"]),
        suspend_reason=row["suspend_reason"],
        suspend_time=row["suspend_time"],
    )
