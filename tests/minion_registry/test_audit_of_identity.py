"""What is done to tenants and keys is told to the tenant's audit, and no secret with it."""

from typing import Any
from uuid import uuid4

from minion.registry.v1 import api_key_service_pb2, tenant_pb2, tenant_service_pb2
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller


async def told(postgres: ClonedDatabase, tenant_id: object) -> list[tuple[str, str, dict[str, Any]]]:
    async with await postgres.connect("registry", "owner") as owner:
        rows = await owner.fetch(
            "SELECT principal, payload FROM registry.outbox WHERE tenant_id = $1 ORDER BY activity_id", tenant_id
        )
    return [(row["principal"], row["payload"]["name"], row["payload"]["input"]) for row in rows]


async def test_what_is_done_to_a_tenant_is_told_to_it(operator: Caller, postgres: ClonedDatabase) -> None:
    wanted = tenant_pb2.Tenant(name=f"t-{uuid4().hex[:12]}")
    tenant = (await operator.tenants.CreateTenant(tenant_service_pb2.CreateTenantRequest(tenant=wanted))).tenant
    suspend = tenant_service_pb2.SuspendTenantRequest(
        tenant_id=tenant.tenant_id, reason="unpaid", request_id=str(uuid7())
    )
    for _ in range(2):
        await operator.tenants.SuspendTenant(suspend)
    # What changes nothing is not told.
    again = tenant_service_pb2.SuspendTenantRequest(tenant_id=tenant.tenant_id, reason="still unpaid")
    await operator.tenants.SuspendTenant(again)
    for _ in range(2):
        await operator.tenants.ResumeTenant(tenant_service_pb2.ResumeTenantRequest(tenant_id=tenant.tenant_id))
    about = {"tenant_id": tenant.tenant_id, "name": tenant.name}
    assert await told(postgres, tenant.tenant_id) == [
        ("operator", "tenant.create", about),
        ("operator", "tenant.suspend", {**about, "reason": "unpaid"}),
        ("operator", "tenant.resume", about),
    ]


async def test_what_is_done_to_keys_is_told_without_secrets(tenant: Caller, postgres: ClonedDatabase) -> None:
    pb = api_key_service_pb2
    made = await tenant.api_keys.CreateApiKey(pb.CreateApiKeyRequest(display_name="CI", scopes=["agents.*"]))
    old_id = made.api_key.api_key_id
    rotated = await tenant.api_keys.RotateApiKey(pb.RotateApiKeyRequest(api_key_id=old_id))
    # What changes nothing is not told.
    for _ in range(2):
        await tenant.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(api_key_id=old_id))
    entries = (await told(postgres, tenant.tenant_id))[-3:]
    assert [name for _, name, _ in entries] == ["key.create", "key.rotate", "key.revoke"]
    assert [details["scopes"] for _, _, details in entries] == [["agents.*"]] * 3
    assert entries[1][2]["replaces"] == entries[2][2]["api_key_id"] == old_id
    assert made.secret
    for secret in (made.secret, rotated.secret):
        assert secret not in str(entries)
