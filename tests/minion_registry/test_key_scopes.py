"""What a key may do: scopes on CreateApiKey, in every call, and in the keys that a key makes."""

import grpc
import pytest
from minion.registry.v1 import agent_service_pb2, tool_service_pb2
from minion.registry.v1 import api_key_service_pb2 as pb
from minion_auth import scopes
from minion_testing.errors import refused
from minion_testing.serving import Served

from tests.minion_registry.stage import Caller, over


async def create(caller: Caller, *scopes: str) -> pb.CreateApiKeyResponse:
    return await caller.api_keys.CreateApiKey(pb.CreateApiKeyRequest(display_name="k", scopes=scopes))


async def test_a_key_has_the_scopes_that_it_was_made_with_and_everything_by_default(tenant: Caller) -> None:
    assert list((await create(tenant)).api_key.scopes) == ["*"]
    made = await create(tenant, "runs.write", "agents.*", "runs.write")
    assert list(made.api_key.scopes) == ["runs.write", "agents.*"]


@pytest.mark.parametrize(
    "scope",
    [
        *("", "agents", "agents.", "agents.admin", ".read", "*.*", "*.read", "agents.rea?", "Agents.read"),
        *("tenants.admin", "tenants.*", "keys.verify", "embedding_models.admin"),
        *("agents.read agents.write", "x" * 5_000),
    ],
)
async def test_a_scope_that_names_no_permission_of_a_tenant_is_refused(tenant: Caller, scope: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await create(tenant, "agents.read", scope)
    assert list(refusal.violations) == ["scopes[1]"]


async def test_a_key_takes_fifty_scopes_at_most(tenant: Caller) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await create(tenant, *["agents.read"] * 51)
    assert list(refusal.violations) == ["scopes"]
    assert len(scopes.vocabulary()) <= 50


async def test_a_key_may_do_what_its_scopes_cover_and_is_told_what_it_lacks(registry: Served, tenant: Caller) -> None:
    agent = await tenant.create()
    reads = agent_service_pb2.GetAgentRequest(agent_id=agent.agent_id)
    for scope, may_write in (("agents.read", False), ("agents.*", True), ("*", True)):
        made = await create(tenant, scope)
        async with registry.channel(made.secret) as channel:
            caller = over(channel, tenant.tenant_id)
            assert (await caller.agents.GetAgent(reads)).agent == agent
            if may_write:
                await caller.create()
            else:
                async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING") as refusal:
                    await caller.create()
                assert refusal.metadata["permission"] == "agents.write"
            if scope != "*":
                async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING") as refusal:
                    await caller.tools.ListTools(tool_service_pb2.ListToolsRequest())
                assert refusal.metadata["permission"] == "tools.read"


async def test_a_key_makes_and_rotates_none_that_may_do_more_than_itself(registry: Served, tenant: Caller) -> None:
    wide = await create(tenant, "agents.read", "agents.write")
    narrow = await create(tenant, "keys.admin", "agents.read")
    async with registry.channel(narrow.secret) as channel:
        caller = over(channel, tenant.tenant_id)
        made = await create(caller, "agents.read", "keys.admin")
        assert list(made.api_key.scopes) == ["agents.read", "keys.admin"]
        # None at all means everything; a noun's all is more than all that it has now.
        for wanted, beyond in (((), "*"), (("*",), "*"), (("agents.*",), "agents.*"), (("runs.write",), "runs.write")):
            async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING") as refusal:
                await create(caller, *wanted)
            assert refusal.metadata["permission"] == beyond
        async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING") as refusal:
            await caller.api_keys.RotateApiKey(pb.RotateApiKeyRequest(api_key_id=wide.api_key.api_key_id))
        assert refusal.metadata["permission"] == "agents.write"
        rotated = await caller.api_keys.RotateApiKey(pb.RotateApiKeyRequest(api_key_id=made.api_key.api_key_id))
        assert list(rotated.api_key.scopes) == ["agents.read", "keys.admin"]


async def test_reading_keys_is_not_making_them(registry: Served, tenant: Caller) -> None:
    made = await create(tenant, "keys.read")
    async with registry.channel(made.secret) as channel:
        caller = over(channel, tenant.tenant_id)
        assert (await caller.api_keys.ListApiKeys(pb.ListApiKeysRequest())).api_keys
        for call in (
            create(caller, "keys.read"),
            caller.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(api_key_id=made.api_key.api_key_id)),
            caller.api_keys.RotateApiKey(pb.RotateApiKeyRequest(api_key_id=made.api_key.api_key_id)),
        ):
            async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING") as refusal:
                await call
            assert refusal.metadata["permission"] == "keys.admin"
