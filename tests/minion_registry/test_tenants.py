"""CreateTenant."""

from typing import Any
from uuid import uuid4

import grpc
import pytest
from minion.registry.v1 import tenant_pb2
from minion.registry.v1 import tenant_service_pb2 as pb
from minion_testing.errors import refused
from minion_testing.serving import Served
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller, over


def wanted(**fields: Any) -> tenant_pb2.Tenant:
    return tenant_pb2.Tenant(**{"name": f"t-{uuid4().hex[:12]}", **fields})


async def test_a_tenant_is_created(operator: Caller) -> None:
    tenant = wanted(display_name="Blue", tenant_id=str(uuid7()))
    created = (await operator.tenants.CreateTenant(pb.CreateTenantRequest(tenant=tenant))).tenant
    assert created.create_time.seconds
    created.ClearField("create_time")
    assert created == tenant


async def test_a_repeat_returns_the_first_result(operator: Caller) -> None:
    request = pb.CreateTenantRequest(tenant=wanted(), request_id=str(uuid7()))
    first = await operator.tenants.CreateTenant(request)
    assert await operator.tenants.CreateTenant(request) == first


async def test_the_same_request_id_with_another_body_is_refused(operator: Caller) -> None:
    request_id = str(uuid7())
    await operator.tenants.CreateTenant(pb.CreateTenantRequest(tenant=wanted(), request_id=request_id))
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await operator.tenants.CreateTenant(pb.CreateTenantRequest(tenant=wanted(), request_id=request_id))


async def test_a_name_or_id_that_is_taken_is_refused(operator: Caller) -> None:
    tenant = wanted(tenant_id=str(uuid7()))
    await operator.tenants.CreateTenant(pb.CreateTenantRequest(tenant=tenant))
    for again in (wanted(name=tenant.name), wanted(tenant_id=tenant.tenant_id)):
        async with refused(grpc.StatusCode.ALREADY_EXISTS, "TENANT_NAME_TAKEN"):
            await operator.tenants.CreateTenant(pb.CreateTenantRequest(tenant=again))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "Blue"}, "tenant.name"),
        ({"name": "a" * 64}, "tenant.name"),
        ({"display_name": "x" * 201}, "tenant.display_name"),
        ({"tenant_id": "blue"}, "tenant.tenant_id"),
        ({"tenant_id": "00000000-0000-0000-0000-000000000000"}, "tenant.tenant_id"),
    ],
)
async def test_a_field_beyond_its_limit_is_named(operator: Caller, fields: dict[str, str], field: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await operator.tenants.CreateTenant(pb.CreateTenantRequest(tenant=wanted(**fields)))
    assert list(refusal.violations) == [field]


async def test_nobody_but_operators_may(registry: Served, tenant: Caller) -> None:
    async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"):
        await tenant.tenants.CreateTenant(pb.CreateTenantRequest(tenant=wanted()))
    async with registry.acting(None) as channel, refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"):
        await over(channel, tenant.tenant_id).tenants.CreateTenant(pb.CreateTenantRequest(tenant=wanted()))
