"""CreateApiKey, RevokeApiKey, VerifyCredential, and the registry's own authentication by its own keys."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from minion.registry.v1 import agent_service_pb2, tenant_pb2
from minion.registry.v1 import api_key_service_pb2 as pb
from minion_auth import api_keys
from minion_auth.authenticator import TENANT_METADATA
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, serve
from minion_testing.tenants import new_tenant
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller, over


async def create(caller: Caller, **fields: object) -> pb.CreateApiKeyResponse:
    return await caller.api_keys.CreateApiKey(pb.CreateApiKeyRequest(**fields))  # type: ignore[arg-type]


async def verify(registry: Served, secret: str) -> pb.VerifyCredentialResponse:
    async with registry.acting(None) as channel:
        request = pb.VerifyCredentialRequest(digest=api_keys.digest(secret))
        return await over(channel, uuid4()).api_keys.VerifyCredential(request)


async def test_a_key_shows_its_secret_once_and_works(registry: Served, tenant: Caller) -> None:
    made = await create(tenant, display_name="CI")
    assert made.api_key.display_name == "CI"
    assert made.secret.startswith(made.api_key.prefix)
    assert not made.api_key.HasField("expire_time")
    assert not made.api_key.HasField("revoke_time")
    async with registry.channel(made.secret) as channel:
        await over(channel, tenant.tenant_id).create()


async def test_a_repeat_omits_the_secret(tenant: Caller) -> None:
    request = pb.CreateApiKeyRequest(display_name="CI", request_id=str(uuid7()))
    first = await tenant.api_keys.CreateApiKey(request)
    again = await tenant.api_keys.CreateApiKey(request)
    assert first.secret
    assert again == pb.CreateApiKeyResponse(api_key=first.api_key)


async def test_no_secret_is_stored_anywhere(registry: Served, tenant: Caller, postgres: ClonedDatabase) -> None:
    made = await create(tenant, display_name="CI", request_id=str(uuid7()))
    database = await postgres.connect("registry", "owner")
    async with database:
        rows = await database.fetch(
            "SELECT to_jsonb(k) AS row FROM registry.api_keys k WHERE tenant_id = $1"
            " UNION ALL SELECT to_jsonb(i) FROM registry.idempotency_keys i WHERE tenant_id = $1",
            tenant.tenant_id,
        )
    hidden = made.secret.removeprefix(made.api_key.prefix)
    assert len(rows) >= 2
    assert all(hidden not in str(row["row"]) for row in rows)


async def test_the_same_request_id_with_another_body_is_refused(tenant: Caller) -> None:
    request_id = str(uuid7())
    await create(tenant, display_name="one", request_id=request_id)
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await create(tenant, display_name="two", request_id=request_id)


async def test_an_operator_makes_keys_for_the_tenant_it_names(
    registry: Served, tenant: Caller, operator: Caller
) -> None:
    request = pb.CreateApiKeyRequest(display_name="first")
    made = await operator.api_keys.CreateApiKey(request, metadata=((TENANT_METADATA, str(tenant.tenant_id)),))
    assert (await verify(registry, made.secret)).tenant_id == str(tenant.tenant_id)
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TENANT_MISSING"):
        await operator.api_keys.CreateApiKey(request)
    async with refused(grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND"):
        await operator.api_keys.CreateApiKey(request, metadata=((TENANT_METADATA, str(uuid4())),))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"display_name": "x" * 201}, "display_name"),
        ({"ttl": Duration(seconds=59)}, "ttl"),
        ({"ttl": Duration(seconds=3_650 * 86_400 + 1)}, "ttl"),
        ({"ttl": Duration(seconds=-1)}, "ttl"),
        ({"request_id": "once"}, "request_id"),
    ],
)
async def test_a_field_beyond_its_limit_is_named(tenant: Caller, fields: dict[str, object], field: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await create(tenant, **fields)
    assert list(refusal.violations) == [field]


async def test_a_verified_key_names_its_tenant_and_its_end(registry: Served, tenant: Caller) -> None:
    made = await create(tenant, ttl=Duration(seconds=3_600))
    ends = made.api_key.expire_time.ToDatetime(UTC)
    assert abs(ends - datetime.now(UTC) - timedelta(hours=1)) < timedelta(seconds=30)
    assert await verify(registry, made.secret) == pb.VerifyCredentialResponse(
        tenant_id=str(tenant.tenant_id),
        api_key_id=made.api_key.api_key_id,
        expire_time=made.api_key.expire_time,
        scopes=["*"],
        tenant_status=tenant_pb2.TENANT_STATUS_ACTIVE,
    )


async def test_unknown_revoked_and_expired_keys_are_refused_alike(
    registry: Served, tenant: Caller, postgres: ClonedDatabase
) -> None:
    unknown = api_keys.generate().secret
    revoked, expired = await create(tenant), await create(tenant, ttl=Duration(seconds=60))
    await tenant.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(api_key_id=revoked.api_key.api_key_id))
    async with await postgres.connect("registry", "owner") as database:
        await database.execute(
            "UPDATE registry.api_keys SET expire_time = now() - interval '1 second' WHERE api_key_id = $1::text::uuid",
            expired.api_key.api_key_id,
        )
    messages = set()
    for secret in (unknown, revoked.secret, expired.secret):
        async with refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID") as refusal:
            await verify(registry, secret)
        messages.add(refusal.message)
        async with registry.channel(secret) as channel, refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID"):
            await over(channel, tenant.tenant_id).create()
    assert len(messages) == 1


async def test_a_digest_that_is_none_is_named(registry: Served) -> None:
    async with (
        registry.acting(None) as channel,
        refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal,
    ):
        await over(channel, uuid4()).api_keys.VerifyCredential(pb.VerifyCredentialRequest(digest=b"short"))
    assert list(refusal.violations) == ["digest"]


async def test_services_alone_verify(tenant: Caller, operator: Caller) -> None:
    request = pb.VerifyCredentialRequest(digest=bytes(32))
    for caller in (tenant, operator):
        async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"):
            await caller.api_keys.VerifyCredential(request)


async def test_verifying_is_one_statement(registry: Served, tenant: Caller) -> None:
    made = await create(tenant)
    registry.telemetry.flush()
    registry.collected.clear()
    await verify(registry, made.secret)
    statements = [span.name for span in registry.spans() if span.name.startswith("registry.")]
    assert statements == ["registry.verify_credential"]


async def test_a_revoked_key_stays_as_it_was(tenant: Caller) -> None:
    made = await create(tenant)
    request = pb.RevokeApiKeyRequest(api_key_id=made.api_key.api_key_id)
    first = (await tenant.api_keys.RevokeApiKey(request)).api_key
    assert first.HasField("revoke_time")
    assert (await tenant.api_keys.RevokeApiKey(request)).api_key == first


async def test_revoking_may_be_repeated_and_its_request_id_not_reused(tenant: Caller) -> None:
    one, two = await create(tenant), await create(tenant)
    request_id = str(uuid7())
    request = pb.RevokeApiKeyRequest(api_key_id=one.api_key.api_key_id, request_id=request_id)
    first = await tenant.api_keys.RevokeApiKey(request)
    assert await tenant.api_keys.RevokeApiKey(request) == first
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await tenant.api_keys.RevokeApiKey(
            pb.RevokeApiKeyRequest(api_key_id=two.api_key.api_key_id, request_id=request_id)
        )


async def test_keys_of_nobody_and_of_others_are_not_found(registry: Served, tenant: Caller, stranger: Caller) -> None:
    made = await create(tenant)
    for caller, api_key_id in ((tenant, str(uuid7())), (stranger, made.api_key.api_key_id)):
        async with refused(grpc.StatusCode.NOT_FOUND, "API_KEY_NOT_FOUND"):
            await caller.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(api_key_id=api_key_id))
    await verify(registry, made.secret)


async def test_revoking_nothing_is_malformed(tenant: Caller) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest())
    assert list(refusal.violations) == ["api_key_id"]


async def test_a_revoked_key_that_was_in_use_stops_within_the_cache_time(postgres: ClonedDatabase) -> None:
    async with serve("registry", postgres, credential_cache_seconds=0.0) as registry:
        tenant = await new_tenant(registry)
        async with registry.channel(tenant.api_key) as channel:
            caller = over(channel, tenant.tenant_id)
            await caller.agents.ListAgents(agent_service_pb2.ListAgentsRequest())
            await caller.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(api_key_id=tenant.api_key_id))
            async with refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID"):
                await caller.agents.ListAgents(agent_service_pb2.ListAgentsRequest())
