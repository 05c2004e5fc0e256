"""What a tenant is."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class NewTenant:
    """A tenant that is to be."""

    tenant_id: UUID
    name: str
    display_name: str


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant as stored."""

    tenant_id: UUID
    name: str
    display_name: str
    create_time: datetime
