"""Tenants for tests: fresh ones, so that no test sees another's rows."""

from dataclasses import dataclass
from uuid import UUID, uuid4

from minion.registry.v1 import api_key_service_pb2, tenant_pb2, tenant_service_pb2
from minion.registry.v1.api_key_service_pb2_grpc import ApiKeyServiceStub
from minion.registry.v1.tenant_service_pb2_grpc import TenantServiceStub
from minion_auth.authenticator import TENANT_METADATA

from minion_testing.serving import Served


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant and a key of its own."""

    tenant_id: UUID
    api_key: str
    api_key_id: str


async def new_tenant(registry: Served) -> Tenant:
    """Makes a tenant and a key through a running registry, as an operator does."""
    async with registry.operator() as channel:
        wanted = tenant_pb2.Tenant(name=f"t-{uuid4().hex[:16]}")
        made = await TenantServiceStub(channel).CreateTenant(tenant_service_pb2.CreateTenantRequest(tenant=wanted))
        key = await ApiKeyServiceStub(channel).CreateApiKey(
            api_key_service_pb2.CreateApiKeyRequest(display_name="tests"),
            metadata=((TENANT_METADATA, made.tenant.tenant_id),),
        )
    return Tenant(UUID(made.tenant.tenant_id), key.secret, key.api_key.api_key_id)
