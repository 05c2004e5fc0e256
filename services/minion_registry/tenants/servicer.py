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
