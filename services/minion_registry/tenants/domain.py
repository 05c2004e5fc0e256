"""What a tenant is."""

import enum
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


class TenantStatus(enum.Enum):
    """Whether a tenant's credentials work."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class NewTenant:
    """A tenant that is to be."""

    tenant_id: UUID
    name: str
    display_name: str


@dataclass(frozen=True, slots=True)
class TenantName:
    """Which tenant is meant: by its id, or else by its name."""

    tenant_id: UUID | None
    name: str | None


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant as stored. The defaults are what results say that the release before this one kept for repeats."""

    tenant_id: UUID
    name: str
    display_name: str
    create_time: datetime
    update_time: datetime | None = None
    status: TenantStatus = TenantStatus.ACTIVE
    suspend_reason: str = ""
    suspend_time: datetime | None = None
