"""Serves minion.registry.v1.TenantService."""

from typing import Any

import grpc
from minion.registry.v1 import tenant_service_pb2 as pb
from minion.registry.v1.tenant_service_pb2_grpc import TenantServiceServicer

from minion_registry.tenants import convert
from minion_registry.tenants.service import Tenants

Context = grpc.aio.ServicerContext[Any, Any]


class TenantServicer(TenantServiceServicer):
    """Serves minion.registry.v1.TenantService."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    async def CreateTenant(self, request: pb.CreateTenantRequest, context: Context) -> pb.CreateTenantResponse:
        tenant, key = convert.create_from_proto(request)
        created = await self._tenants.create(tenant, key)
        return pb.CreateTenantResponse(tenant=convert.tenant_to_proto(created))

    async def GetTenant(self, request: pb.GetTenantRequest, context: Context) -> pb.GetTenantResponse:
        tenant = await self._tenants.get(convert.get_from_proto(request))
        return pb.GetTenantResponse(tenant=convert.tenant_to_proto(tenant))

    async def ListTenants(self, request: pb.ListTenantsRequest, context: Context) -> pb.ListTenantsResponse:
        status, size, token = convert.list_from_proto(request)
        tenants, more = await self._tenants.page(status, size, token)
        return pb.ListTenantsResponse(
            tenants=[convert.tenant_to_proto(tenant) for tenant in tenants], next_page_token=more
        )

    async def SuspendTenant(self, request: pb.SuspendTenantRequest, context: Context) -> pb.SuspendTenantResponse:
        tenant_id, reason, key = convert.suspend_from_proto(request)
        suspended = await self._tenants.suspend(tenant_id, reason, key)
        return pb.SuspendTenantResponse(tenant=convert.tenant_to_proto(suspended))

    async def ResumeTenant(self, request: pb.ResumeTenantRequest, context: Context) -> pb.ResumeTenantResponse:
        tenant_id, key = convert.resume_from_proto(request)
        resumed = await self._tenants.resume(tenant_id, key)
        return pb.ResumeTenantResponse(tenant=convert.tenant_to_proto(resumed))
