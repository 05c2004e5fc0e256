"""Between the contract's tenants and ours."""

from minion.registry.v1 import tenant_pb2
from minion.registry.v1 import tenant_service_pb2 as pb
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key
from uuid_utils.compat import uuid7

from minion_registry import requests
from minion_registry.tenants.domain import NewTenant, Tenant


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


def tenant_to_proto(tenant: Tenant) -> tenant_pb2.Tenant:
    """Writes a tenant."""
    return tenant_pb2.Tenant(
        tenant_id=str(tenant.tenant_id),
        name=tenant.name,
        display_name=tenant.display_name,
        create_time=wire.to_timestamp(tenant.create_time),
    )
