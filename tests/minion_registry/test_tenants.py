"""CreateTenant, GetTenant, ListTenants, SuspendTenant, ResumeTenant: what operators do with tenants."""

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
    assert created.update_time == created.create_time
    assert created.status == tenant_pb2.TENANT_STATUS_ACTIVE
    for field in ("create_time", "update_time", "status"):
        created.ClearField(field)
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
    tenant_id = str(tenant.tenant_id)
    async with registry.acting(tenant.tenant_id) as channel:
        for caller in (tenant, over(channel, tenant.tenant_id)):
            for call in (
                caller.tenants.CreateTenant(pb.CreateTenantRequest(tenant=wanted())),
                caller.tenants.GetTenant(pb.GetTenantRequest(tenant_id=tenant_id)),
                caller.tenants.ListTenants(pb.ListTenantsRequest()),
                caller.tenants.SuspendTenant(pb.SuspendTenantRequest(tenant_id=tenant_id, reason="x")),
                caller.tenants.ResumeTenant(pb.ResumeTenantRequest(tenant_id=tenant_id)),
            ):
                async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING") as refusal:
                    await call
                assert refusal.metadata["permission"] == "tenants.admin"


async def create(operator: Caller, **fields: Any) -> tenant_pb2.Tenant:
    return (await operator.tenants.CreateTenant(pb.CreateTenantRequest(tenant=wanted(**fields)))).tenant


async def suspend(operator: Caller, tenant_id: str, reason: str = "unpaid", **fields: Any) -> tenant_pb2.Tenant:
    request = pb.SuspendTenantRequest(tenant_id=tenant_id, reason=reason, **fields)
    return (await operator.tenants.SuspendTenant(request)).tenant


async def test_a_tenant_is_found_by_its_id_and_by_its_name(operator: Caller) -> None:
    created = await create(operator, display_name="Blue")
    for request in (pb.GetTenantRequest(tenant_id=created.tenant_id), pb.GetTenantRequest(name=created.name)):
        assert (await operator.tenants.GetTenant(request)).tenant == created


async def test_a_tenant_that_is_nobody_is_not_found(operator: Caller) -> None:
    nobody = str(uuid7())
    for call in (
        operator.tenants.GetTenant(pb.GetTenantRequest(tenant_id=nobody)),
        operator.tenants.GetTenant(pb.GetTenantRequest(name="nobody")),
        operator.tenants.SuspendTenant(pb.SuspendTenantRequest(tenant_id=nobody, reason="x")),
        operator.tenants.ResumeTenant(pb.ResumeTenantRequest(tenant_id=nobody)),
    ):
        async with refused(grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND") as refusal:
            await call
        assert set(refusal.metadata.values()) <= {nobody, "nobody"}


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.GetTenantRequest(), ["tenant_id", "name"]),
        (pb.GetTenantRequest(tenant_id=str(uuid7()), name="blue"), ["tenant_id", "name"]),
        (pb.GetTenantRequest(tenant_id="blue"), ["tenant_id"]),
        (pb.GetTenantRequest(name="a" * 64), ["name"]),
        (pb.ListTenantsRequest(page_size=-1, status=7), ["status", "page_size"]),  # type: ignore[arg-type]
        (pb.SuspendTenantRequest(), ["tenant_id", "reason"]),
        (
            pb.SuspendTenantRequest(tenant_id="blue", reason="x" * 501, request_id="once"),
            ["tenant_id", "reason", "request_id"],
        ),
        (pb.ResumeTenantRequest(request_id="once"), ["tenant_id", "request_id"]),
    ],
)
async def test_every_fault_of_a_request_is_named(operator: Caller, request_: Any, fields: list[str]) -> None:
    call = getattr(operator.tenants, request_.DESCRIPTOR.name.removesuffix("Request"))
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await call(request_)
    assert list(refusal.violations) == fields


async def listed(operator: Caller, size: int, **filters: Any) -> list[tenant_pb2.Tenant]:
    found: list[tenant_pb2.Tenant] = []
    token = ""
    while True:
        request = pb.ListTenantsRequest(page_size=size, page_token=token, **filters)
        page = await operator.tenants.ListTenants(request)
        assert len(page.tenants) <= size
        found += page.tenants
        if not (token := page.next_page_token):
            return found


async def test_tenants_are_listed_by_name_page_by_page_and_by_status(operator: Caller) -> None:
    made = [await create(operator) for _ in range(5)]
    suspended = await suspend(operator, made[2].tenant_id)
    everybody = await listed(operator, 2)
    names = [tenant.name for tenant in everybody]
    assert names == sorted(names)
    assert len(set(names)) == len(names)
    assert {tenant.name for tenant in made} <= set(names)
    assert suspended in everybody
    by_status = {
        status: await listed(operator, 2, status=status)
        for status in (tenant_pb2.TENANT_STATUS_ACTIVE, tenant_pb2.TENANT_STATUS_SUSPENDED)
    }
    assert suspended in by_status[tenant_pb2.TENANT_STATUS_SUSPENDED]
    for status, tenants in by_status.items():
        assert tenants == [tenant for tenant in everybody if tenant.status == status]


async def test_a_token_of_another_list_is_refused(operator: Caller) -> None:
    await create(operator)
    page = await operator.tenants.ListTenants(pb.ListTenantsRequest(page_size=1))
    assert page.next_page_token
    for request in (
        pb.ListTenantsRequest(page_token="no token"),
        pb.ListTenantsRequest(page_token=page.next_page_token, status=tenant_pb2.TENANT_STATUS_ACTIVE),
    ):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
            await operator.tenants.ListTenants(request)


async def test_a_suspended_tenant_says_why_and_since_when_and_stays_as_it_was(operator: Caller) -> None:
    created = await create(operator)
    suspended = await suspend(operator, created.tenant_id, "unpaid since May")
    assert suspended.status == tenant_pb2.TENANT_STATUS_SUSPENDED
    assert suspended.suspend_reason == "unpaid since May"
    assert suspended.suspend_time.ToMicroseconds() >= created.create_time.ToMicroseconds()
    assert suspended.update_time == suspended.suspend_time
    assert await suspend(operator, created.tenant_id, "another reason") == suspended
    assert (await operator.tenants.GetTenant(pb.GetTenantRequest(name=created.name))).tenant == suspended


async def test_a_resumed_tenant_is_as_it_was_before(operator: Caller) -> None:
    created = await create(operator)
    await suspend(operator, created.tenant_id)
    request = pb.ResumeTenantRequest(tenant_id=created.tenant_id)
    resumed = (await operator.tenants.ResumeTenant(request)).tenant
    assert resumed.status == tenant_pb2.TENANT_STATUS_ACTIVE
    assert not resumed.suspend_reason
    assert not resumed.HasField("suspend_time")
    assert (await operator.tenants.ResumeTenant(request)).tenant == resumed


async def test_suspending_and_resuming_may_be_repeated_and_their_request_ids_not_reused(operator: Caller) -> None:
    one, two = await create(operator), await create(operator)
    once, again = str(uuid7()), str(uuid7())
    first = await suspend(operator, one.tenant_id, request_id=once)
    resume = pb.ResumeTenantRequest(tenant_id=one.tenant_id, request_id=again)
    resumed = await operator.tenants.ResumeTenant(resume)
    # A repeat tells what came of it then, and does nothing.
    assert await suspend(operator, one.tenant_id, request_id=once) == first
    assert (await operator.tenants.GetTenant(pb.GetTenantRequest(tenant_id=one.tenant_id))).tenant == resumed.tenant
    assert await operator.tenants.ResumeTenant(resume) == resumed
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await suspend(operator, two.tenant_id, request_id=once)
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await operator.tenants.ResumeTenant(pb.ResumeTenantRequest(tenant_id=two.tenant_id, request_id=again))
