"""ListApiKeys and RotateApiKey."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from minion.registry.v1 import api_key_pb2
from minion.registry.v1 import api_key_service_pb2 as pb
from minion_auth.authenticator import TENANT_METADATA
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller, over

DAY = 86_400


async def create(caller: Caller, **fields: Any) -> api_key_pb2.ApiKey:
    return (await caller.api_keys.CreateApiKey(pb.CreateApiKeyRequest(**fields))).api_key


async def rotate(caller: Caller, api_key_id: str, **fields: Any) -> pb.RotateApiKeyResponse:
    return await caller.api_keys.RotateApiKey(pb.RotateApiKeyRequest(api_key_id=api_key_id, **fields))


async def listed(caller: Caller, size: int = 0) -> list[api_key_pb2.ApiKey]:
    found: list[api_key_pb2.ApiKey] = []
    token = ""
    while True:
        page = await caller.api_keys.ListApiKeys(pb.ListApiKeysRequest(page_size=size, page_token=token))
        found += page.api_keys
        if not (token := page.next_page_token):
            return found


def left(api_key: api_key_pb2.ApiKey) -> timedelta:
    return api_key.expire_time.ToDatetime(UTC) - datetime.now(UTC)


def about(span: timedelta) -> Any:
    return pytest.approx(span.total_seconds(), abs=30)


async def test_keys_are_listed_newest_first_page_by_page_with_the_revoked_ones(
    tenant: Caller, stranger: Caller
) -> None:
    made = [await create(tenant, display_name=str(number)) for number in range(4)]
    revoked = await tenant.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(api_key_id=made[1].api_key_id))
    made[1] = revoked.api_key
    first = await listed(tenant)
    # The oldest is the one that the test itself calls with.
    assert first[:-1] == made[::-1]
    assert await listed(tenant, 2) == await listed(tenant, 1) == first
    assert not {key.api_key_id for key in first} & {key.api_key_id for key in await listed(stranger)}


async def test_an_operator_lists_and_rotates_for_the_tenant_it_names(tenant: Caller, operator: Caller) -> None:
    made = await create(tenant)
    named = ((TENANT_METADATA, str(tenant.tenant_id)),)
    found = await operator.api_keys.ListApiKeys(pb.ListApiKeysRequest(), metadata=named)
    assert made in found.api_keys
    rotated = await operator.api_keys.RotateApiKey(pb.RotateApiKeyRequest(api_key_id=made.api_key_id), metadata=named)
    assert rotated.api_key.replaces_api_key_id == made.api_key_id
    for call in (
        operator.api_keys.ListApiKeys(pb.ListApiKeysRequest()),
        operator.api_keys.RotateApiKey(pb.RotateApiKeyRequest(api_key_id=made.api_key_id)),
    ):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TENANT_MISSING"):
            await call


async def test_a_page_token_that_is_none_is_refused(tenant: Caller) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
        await tenant.api_keys.ListApiKeys(pb.ListApiKeysRequest(page_token="no token"))
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.api_keys.ListApiKeys(pb.ListApiKeysRequest(page_size=-1))
    assert list(refusal.violations) == ["page_size"]


async def test_a_new_key_takes_the_place_of_the_old_one_and_both_work_for_a_while(
    registry: Served, tenant: Caller
) -> None:
    old = await tenant.api_keys.CreateApiKey(pb.CreateApiKeyRequest(display_name="CI", scopes=["agents.*"]))
    rotated = await rotate(tenant, old.api_key.api_key_id)
    new = rotated.api_key
    assert (new.display_name, list(new.scopes)) == ("CI", ["agents.*"])
    assert new.replaces_api_key_id == old.api_key.api_key_id
    assert not new.HasField("expire_time")
    assert rotated.secret.startswith(new.prefix)
    assert left(rotated.replaced).total_seconds() == about(timedelta(days=1))
    for secret in (old.secret, rotated.secret):
        async with registry.channel(secret) as channel:
            await over(channel, tenant.tenant_id).create()
    assert {rotated.replaced.api_key_id, new.api_key_id} <= {key.api_key_id for key in await listed(tenant)}


@pytest.mark.parametrize(
    ("ttl", "overlap", "expected"),
    [
        (None, Duration(seconds=60), timedelta(minutes=1)),
        (Duration(seconds=2 * DAY), Duration(seconds=30 * DAY), timedelta(days=2)),
        (Duration(seconds=3_600), None, timedelta(hours=1)),
    ],
)
async def test_the_old_key_works_for_the_overlap_and_no_longer_than_it_would_have(
    tenant: Caller, ttl: Duration | None, overlap: Duration | None, expected: timedelta
) -> None:
    old = await create(tenant, ttl=ttl)
    rotated = await rotate(tenant, old.api_key_id, overlap=overlap, ttl=Duration(seconds=7 * DAY))
    assert left(rotated.replaced).total_seconds() == about(expected)
    assert left(rotated.api_key).total_seconds() == about(timedelta(days=7))


@pytest.mark.parametrize("ttl", [None, Duration(seconds=30 * DAY)])
async def test_whoever_rotates_a_key_again_gets_one_made_for_as_long_as_it_was(
    tenant: Caller, ttl: Duration | None
) -> None:
    old = await create(tenant, ttl=ttl)
    # The answer with the secret was lost: a repeat would not show it, so that another key is asked for.
    for _ in range(3):
        new = (await rotate(tenant, old.api_key_id, overlap=Duration(seconds=3_600))).api_key
        assert new.HasField("expire_time") == (ttl is not None)
        if ttl is not None:
            made_for = new.expire_time.ToDatetime(UTC) - new.create_time.ToDatetime(UTC)
            assert made_for == ttl.ToTimedelta()
    replaced = (await rotate(tenant, old.api_key_id, overlap=Duration(seconds=60))).replaced
    assert left(replaced).total_seconds() == about(timedelta(minutes=1))


async def test_an_overlap_of_nothing_ends_the_old_key_at_once(registry: Served, tenant: Caller) -> None:
    old = await tenant.api_keys.CreateApiKey(pb.CreateApiKeyRequest())
    await rotate(tenant, old.api_key.api_key_id, overlap=Duration())
    async with registry.channel(old.secret) as channel, refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID"):
        await over(channel, tenant.tenant_id).create()


async def test_a_repeat_omits_the_secret_and_makes_no_second_key(tenant: Caller) -> None:
    old = await create(tenant)
    request_id = str(uuid7())
    first = await rotate(tenant, old.api_key_id, request_id=request_id)
    count = len(await listed(tenant))
    again = await rotate(tenant, old.api_key_id, request_id=request_id)
    assert first.secret
    assert again == pb.RotateApiKeyResponse(api_key=first.api_key, replaced=first.replaced)
    assert len(await listed(tenant)) == count
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await rotate(tenant, old.api_key_id, request_id=request_id, overlap=Duration(seconds=1))


async def test_a_key_that_is_revoked_or_expired_is_not_rotated(tenant: Caller, postgres: ClonedDatabase) -> None:
    revoked, expired = await create(tenant), await create(tenant, ttl=Duration(seconds=60))
    await tenant.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(api_key_id=revoked.api_key_id))
    async with await postgres.connect("registry", "owner") as database:
        await database.execute(
            "UPDATE registry.api_keys SET expire_time = now() - interval '1 second' WHERE api_key_id = $1::text::uuid",
            expired.api_key_id,
        )
    for old in (revoked, expired):
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "API_KEY_NOT_ACTIVE"):
            await rotate(tenant, old.api_key_id)


async def test_keys_of_nobody_and_of_others_are_not_rotated(tenant: Caller, stranger: Caller) -> None:
    made = await create(tenant)
    messages = set()
    for caller, api_key_id in ((tenant, str(uuid7())), (stranger, made.api_key_id)):
        async with refused(grpc.StatusCode.NOT_FOUND, "API_KEY_NOT_FOUND") as refusal:
            await rotate(caller, api_key_id)
        messages.add(refusal.message)
    assert len(messages) == 1
    assert made in await listed(tenant)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"api_key_id": ""}, "api_key_id"),
        ({"overlap": Duration(seconds=-1)}, "overlap"),
        ({"overlap": Duration(seconds=30 * DAY + 1)}, "overlap"),
        ({"ttl": Duration(seconds=59)}, "ttl"),
        ({"ttl": Duration(seconds=3_650 * DAY + 1)}, "ttl"),
        ({"request_id": "once"}, "request_id"),
    ],
)
async def test_a_field_beyond_its_limit_is_named(tenant: Caller, fields: dict[str, Any], field: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.api_keys.RotateApiKey(pb.RotateApiKeyRequest(**{"api_key_id": str(uuid4()), **fields}))
    assert list(refusal.violations) == [field]


async def test_a_key_with_an_end_is_followed_by_one_with_an_end(tenant: Caller) -> None:
    for ttl, expected in ((Duration(seconds=DAY), timedelta(days=1)), (None, None)):
        old = await create(tenant, ttl=ttl)
        new = (await rotate(tenant, old.api_key_id)).api_key
        assert new.HasField("expire_time") == (expected is not None)
        if expected is not None:
            assert left(new).total_seconds() == about(expected)


async def test_nobody_revokes_a_key_that_may_do_more(registry: Served, tenant: Caller) -> None:
    whole = await create(tenant)
    limited = await tenant.api_keys.CreateApiKey(pb.CreateApiKeyRequest(scopes=["keys.admin", "agents.read"]))
    async with registry.channel(limited.secret) as channel:
        caller = over(channel, tenant.tenant_id)
        async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"):
            await caller.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(api_key_id=whole.api_key_id))
        own = pb.RevokeApiKeyRequest(api_key_id=limited.api_key.api_key_id)
        assert (await caller.api_keys.RevokeApiKey(own)).api_key.HasField("revoke_time")
