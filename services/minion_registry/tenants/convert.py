"""Between the contract's tenants and ours."""

from uuid import UUID

from minion.registry.v1 import tenant_pb2
from minion.registry.v1 import tenant_service_pb2 as pb
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key
from uuid_utils.compat import uuid7

from minion_registry import requests
from minion_registry.tenants.domain import NewTenant, Tenant, TenantName, TenantStatus

_STATUSES = {
    tenant_pb2.TENANT_STATUS_ACTIVE: TenantStatus.ACTIVE,
    tenant_pb2.TENANT_STATUS_SUSPENDED: TenantStatus.SUSPENDED,
}
_STATUSES_TO_PROTO = {status: number for number, status in _STATUSES.items()}


def create_from_proto(request: pb.CreateTenantRequest) -> tuple[NewTenant, Key | None]:
    """Reads a tenant that is to be. Raises InvalidArgument with all faults."""
    violations = Violations()
    tenant = NewTenant(
        tenant_id=requests.identifier_or_new(violations, "tenant.tenant_id", request.tenant.tenant_id, uuid7()),
        name=requests.name(violations, "tenant.name", request.tenant.name),
        display_name=violations.length("tenant.display_name", request.tenant.display_name, maximum=200),
    )
    if tenant.tenant_id.int == 0:
        violations.add("tenant.tenant_id", "must not be the nil UUID")
    key = requests.key(violations, request)
    violations.raise_if_any()
    return tenant, key


def get_from_proto(request: pb.GetTenantRequest) -> TenantName:
    """Reads which tenant is meant. Raises InvalidArgument with all faults."""
    violations = Violations()
    requests.either(violations, {"tenant_id": request.tenant_id, "name": request.name})
    tenant_id = violations.optional_identifier("tenant_id", request.tenant_id)
    violations.length("name", request.name, maximum=63)
    violations.raise_if_any()
    return TenantName(tenant_id=tenant_id, name=request.name or None)


def list_from_proto(request: pb.ListTenantsRequest) -> tuple[TenantStatus | None, int, str]:
    """Reads the filter, the page size and the token. Raises InvalidArgument with all faults."""
    violations = Violations()
    status = _STATUSES.get(request.status)
    if request.status and status is None:
        violations.add("status", "is no known status")
    size = requests.page_size(violations, request.page_size)
    violations.raise_if_any()
    return status, size, request.page_token


def suspend_from_proto(request: pb.SuspendTenantRequest) -> tuple[UUID, str, Key | None]:
    """Reads which tenant to suspend, and why. Raises InvalidArgument with all faults."""
    violations = Violations()
    tenant_id = violations.identifier("tenant_id", request.tenant_id)
    reason = violations.length("reason", request.reason, minimum=1, maximum=500)
    key = requests.key(violations, request)
    violations.raise_if_any()
    return tenant_id, reason, key


def resume_from_proto(request: pb.ResumeTenantRequest) -> tuple[UUID, Key | None]:
    """Reads which tenant to resume. Raises InvalidArgument with all faults."""
    violations = Violations()
    tenant_id = violations.identifier("tenant_id", request.tenant_id)
    key = requests.key(violations, request)
    violations.raise_if_any()
    return tenant_id, key


def tenant_to_proto(tenant: Tenant) -> tenant_pb2.Tenant:
    """Writes a tenant."""
    return tenant_pb2.Tenant(
        tenant_id=str(tenant.tenant_id),
        name=tenant.name,
        display_name=tenant.display_name,
        create_time=wire.to_timestamp(tenant.create_time),
        status=_STATUSES_TO_PROTO[tenant.status],
        suspend_reason=tenant.suspend_reason,
        suspend_time=wire.to_optional_timestamp(tenant.suspend_time),
        update_time=wire.to_timestamp(tenant.update_time or tenant.create_time),
    )
