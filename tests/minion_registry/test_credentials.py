"""What the registry asks its database for callers that it refuses: at most one lookup by digest, and nothing else."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from minion.registry.v1 import agent_service_pb2, tenant_pb2, tenant_service_pb2
from minion.registry.v1 import api_key_service_pb2 as pb
from minion_auth import RULES, api_keys
from minion_grpc import peer_errors
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, serve
from uuid_utils.compat import uuid7

from tests.minion_auth.issuer import AUDIENCE, ISSUER, Issuer
from tests.minion_registry.stage import Caller, over

_METHODS = [method for method in RULES if method.startswith("/minion.registry.")]
_LOOKUP = "SELECT tenant_id, api_key_id, expire_time, scopes, tenant_status FROM registry.verify_api_key($1)"
# What the registry's workers ask for now and then, and the driver of a new connection, whoever calls.
_WORKERS = ("_outbox(", "outbox_lag", "claim_rollouts", "typeinfo_tree", "set_config('jit'")
_TENANT_LOOKUP = "SELECT registry.tenant_status($1)"


@dataclass
class Statements:
    """The statements that the registry's role has sent to this module's database, as the server's log has them."""

    log: Path
    read: int = 0

    def since(self) -> list[str]:
        """Gives those that came since the last time."""
        # Whole lines: that a worker's statement is a worker's may stand in the part that is still being written.
        text = self.log.read_bytes()
        end = text.rfind(b"\n") + 1
        fresh, self.read = text[self.read : end].decode(errors="replace"), end
        found = re.findall(r"LOG:  (?:statement|execute [^:]*): (.*(?:\n\t.*)*)", fresh)
        statements = [" ".join(statement.split()) for statement in found]
        return [statement for statement in statements if not any(name in statement for name in _WORKERS)]

    async def settled(self) -> None:
        """Waits until the registry has done what it does by itself when it starts."""
        seen = ""
        async with asyncio.timeout(60):
            while "purge_requests" not in seen:
                seen += "\n".join(self.since())
                await asyncio.sleep(0.02)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def statements(postgres: ClonedDatabase) -> AsyncIterator[Statements]:
    """Has the server log each statement of connections that the registry's role opens from now on."""
    connection = await asyncpg.connect(postgres.admin_dsn)
    try:
        role = f"minion_registry_app IN DATABASE {postgres.name}"
        await connection.execute(f"ALTER ROLE {role} SET log_statement = 'all'")
    finally:
        await connection.close()
    log = postgres.postgres.log_path
    yield Statements(log, log.stat().st_size)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def registry(
    postgres: ClonedDatabase, statements: Statements, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """A registry that takes an issuer's tokens, and asks about each credential anew."""
    jwks = Issuer(uuid4()).publish(tmp_path_factory.mktemp("issuer") / "jwks.json")
    async with serve(
        "registry",
        postgres,
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_jwks=str(jwks),
        purge_seconds=86_400.0,
        credential_cache_seconds=0.0,
    ) as served:
        await statements.settled()
        yield served


async def answer(registry: Served, method: str, *credentials: str) -> str:
    """Calls a method with an empty request; gives `OK`, or status and reason of the refusal."""
    async with grpc.aio.insecure_channel(registry.address) as channel:
        make: Any = channel.stream_stream(method)
        metadata = [("authorization", f"Bearer {credential}") for credential in credentials]
        call = make(iter([b""]), metadata=metadata, timeout=20)
        try:
            async for _ in call:
                break
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}/{peer_errors.reason_of(error)}"
        finally:
            call.cancel()
        return "OK"


@pytest.mark.parametrize("method", _METHODS)
async def test_who_is_refused_costs_no_statement_but_the_lookup_of_a_key(
    registry: Served, statements: Statements, tenant: Caller, method: str
) -> None:
    issuer = Issuer(tenant.tenant_id)
    past = int(time.time()) - 1_000
    invalid = "UNAUTHENTICATED/CREDENTIAL_INVALID"
    statements.since()
    assert await answer(registry, method) == "UNAUTHENTICATED/CREDENTIAL_MISSING"
    for credential in (
        "mnk_short",
        "mnk_" + "x" * 8_000,
        "mnk_'; DROP TABLE registry.tenants; --".ljust(47, "x"),
        "nobody's operator key, long enough to be one",
        "a.b.c",
        issuer.token(issuer.claims(exp=past, iat=past - 60, nbf=past - 60)),
        issuer.token(issuer.claims(aud="another-api")),
        issuer.token(key_id="' OR '1'='1"),
        issuer.token()[:-6] + "AAAAAA",
    ):
        assert await answer(registry, method, credential) == invalid
    assert await answer(registry, method, "mnk_short", api_keys.generate().secret) == invalid
    assert statements.since() == []
    assert await answer(registry, method, api_keys.generate().secret) == invalid
    assert statements.since() == [_LOOKUP]
    assert await answer(registry, method, Issuer(uuid4()).token()) == invalid
    assert statements.since() == [_TENANT_LOOKUP]


async def test_revoked_expired_and_suspended_cost_the_lookup_alone(
    registry: Served, statements: Statements, tenant: Caller, operator: Caller, postgres: ClonedDatabase
) -> None:
    revoked = await tenant.api_keys.CreateApiKey(pb.CreateApiKeyRequest())
    expired = await tenant.api_keys.CreateApiKey(pb.CreateApiKeyRequest(ttl=Duration(seconds=60)))
    suspended = await tenant.api_keys.CreateApiKey(pb.CreateApiKeyRequest())
    narrow = await tenant.api_keys.CreateApiKey(pb.CreateApiKeyRequest(scopes=["tools.read"]))
    await tenant.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(api_key_id=revoked.api_key.api_key_id))
    async with await postgres.connect("registry", "owner") as database:
        await database.execute(
            "UPDATE registry.api_keys SET expire_time = now() - interval '1 second' WHERE api_key_id = $1::text::uuid",
            expired.api_key.api_key_id,
        )
    method = "/minion.registry.v1.AgentService/ListAgents"
    statements.since()
    assert await answer(registry, method, narrow.secret) == "PERMISSION_DENIED/PERMISSION_MISSING"
    assert await answer(registry, method, revoked.secret) == "UNAUTHENTICATED/CREDENTIAL_INVALID"
    assert await answer(registry, method, expired.secret) == "UNAUTHENTICATED/CREDENTIAL_INVALID"
    assert statements.since() == [_LOOKUP] * 3
    request = tenant_service_pb2.SuspendTenantRequest(tenant_id=str(tenant.tenant_id), reason="unpaid")
    await operator.tenants.SuspendTenant(request)
    statements.since()
    assert await answer(registry, method, suspended.secret) == "PERMISSION_DENIED/TENANT_SUSPENDED"
    assert statements.since() == [_LOOKUP]
    token = Issuer(tenant.tenant_id).token()
    assert await answer(registry, method, token) == "PERMISSION_DENIED/TENANT_SUSPENDED"
    assert statements.since() == [_TENANT_LOOKUP]


async def test_a_token_calls_the_registry_with_its_scopes(registry: Served, tenant: Caller) -> None:
    issuer = Issuer(tenant.tenant_id)
    agent = await tenant.create()
    async with registry.channel(issuer.token(issuer.claims(scope="agents.read keys.admin"))) as channel:
        user = over(channel, tenant.tenant_id)
        got = await user.agents.GetAgent(agent_service_pb2.GetAgentRequest(agent_id=agent.agent_id))
        assert got.agent == agent
        async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"):
            await user.create()
        # What it makes may do no more than itself.
        async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"):
            await user.api_keys.CreateApiKey(pb.CreateApiKeyRequest())
        made = await user.api_keys.CreateApiKey(pb.CreateApiKeyRequest(scopes=["agents.read"]))
        assert made.secret


async def ask(registry: Served, **fields: Any) -> pb.VerifyCredentialResponse:
    async with registry.acting(None) as channel:
        return await over(channel, uuid4()).api_keys.VerifyCredential(pb.VerifyCredentialRequest(**fields))


async def test_services_ask_whether_a_tenants_credentials_work(
    registry: Served, tenant: Caller, operator: Caller
) -> None:
    tenant_id = str(tenant.tenant_id)
    made = await tenant.api_keys.CreateApiKey(pb.CreateApiKeyRequest(scopes=["tools.read", "agents.*"]))
    by_digest = {"digest": api_keys.digest(made.secret)}
    active, suspended = tenant_pb2.TENANT_STATUS_ACTIVE, tenant_pb2.TENANT_STATUS_SUSPENDED
    for expected in (active, suspended, active):
        assert await ask(registry, tenant_id=tenant_id) == pb.VerifyCredentialResponse(
            tenant_id=tenant_id, tenant_status=expected
        )
        # A suspended tenant's key is still a key: the one who asks decides.
        verified = await ask(registry, **by_digest)
        assert (verified.tenant_status, list(verified.scopes)) == (expected, ["agents.*", "tools.read"])
        if expected is active:
            request = tenant_service_pb2.SuspendTenantRequest(tenant_id=tenant_id, reason="unpaid")
            await operator.tenants.SuspendTenant(request)
        else:
            await operator.tenants.ResumeTenant(tenant_service_pb2.ResumeTenantRequest(tenant_id=tenant_id))


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        ({}, ["digest", "tenant_id"]),
        ({"digest": bytes(32), "tenant_id": str(UUID(int=7))}, ["digest", "tenant_id"]),
        ({"digest": bytes(31)}, ["digest"]),
        ({"digest": bytes(33)}, ["digest"]),
        ({"tenant_id": "acme"}, ["tenant_id"]),
    ],
)
async def test_a_question_that_is_none_is_named(registry: Served, fields: dict[str, Any], faults: list[str]) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await ask(registry, **fields)
    assert list(refusal.violations) == faults


async def test_a_tenant_that_is_nobody_is_not_found(registry: Served) -> None:
    async with refused(grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND"):
        await ask(registry, tenant_id=str(uuid7()))


@pytest.mark.parametrize("how", ["revoked", "suspended"])
async def test_a_watch_tells_nothing_more_to_a_caller_whose_credential_ended(
    registry: Served, tenant: Caller, operator: Caller, how: str
) -> None:
    made = await tenant.api_keys.CreateApiKey(pb.CreateApiKeyRequest(scopes=["agents.read"]))
    async with registry.channel(made.secret) as channel, registry.acting(tenant.tenant_id) as service:
        watch = over(channel, tenant.tenant_id).agents.WatchAgents(agent_service_pb2.WatchAgentsRequest())
        by_service = over(service, tenant.tenant_id)
        their_watch = by_service.agents.WatchAgents(agent_service_pb2.WatchAgentsRequest())
        for each in (watch, their_watch):
            assert isinstance(await each.read(), agent_service_pb2.WatchAgentsResponse)
        await tenant.create()
        assert isinstance(await watch.read(), agent_service_pb2.WatchAgentsResponse)
        if how == "revoked":
            await tenant.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(api_key_id=made.api_key.api_key_id))
            expected = (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")
        else:
            request = tenant_service_pb2.SuspendTenantRequest(tenant_id=str(tenant.tenant_id), reason="unpaid")
            await operator.tenants.SuspendTenant(request)
            expected = (grpc.StatusCode.PERMISSION_DENIED, "TENANT_SUSPENDED")
        await by_service.create()
        async with refused(*expected):
            await watch.read()
        # A service that acts for the tenant hears of both.
        for _ in range(2):
            assert isinstance(await their_watch.read(), agent_service_pb2.WatchAgentsResponse)
        their_watch.cancel()
