"""Keys verified by asking the registry, over the wire."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import uuid4

import grpc
import pytest
from minion.registry.v1 import api_key_service_pb2 as pb
from minion.registry.v1 import api_key_service_pb2_grpc, tenant_pb2
from minion_auth import EVERYTHING, Authenticator, ServiceTokens, VerifiedKey, api_keys, caller
from minion_errors import NotFound, PermissionDenied, Unauthenticated, Unavailable
from minion_grpc import Server, ServerSettings, deadline, wire
from minion_grpc.verification import RegistryVerifier, authenticating
from minion_telemetry import Telemetry
from minion_testing.serving import free_ports
from pydantic import SecretStr

from tests.minion_grpc.stage import SERVICE_KEY, Keys, settings

_STATUSES = {True: tenant_pb2.TENANT_STATUS_SUSPENDED, False: tenant_pb2.TENANT_STATUS_ACTIVE}
METHOD = "/minion.session.v1.SessionService/GetSession"


class ApiKeys(api_key_service_pb2_grpc.ApiKeyServiceServicer):
    """Answers VerifyCredential as the contract says."""

    def __init__(self, keys: dict[bytes, VerifiedKey]) -> None:
        self.keys = keys
        self.tenants: dict[str, bool] = {}
        self.of_before = False
        self.callers: list[str] = []
        self.deadlines: list[float | None] = []

    async def CreateApiKey(self, request: Any, context: Any) -> Any:
        raise AssertionError("nobody asks for it here")

    async def RevokeApiKey(self, request: Any, context: Any) -> Any:
        raise AssertionError("nobody asks for it here")

    async def ListApiKeys(self, request: Any, context: Any) -> Any:
        raise AssertionError("nobody asks for it here")

    async def RotateApiKey(self, request: Any, context: Any) -> Any:
        raise AssertionError("nobody asks for it here")

    async def VerifyCredential(self, request: Any, context: Any) -> Any:
        self.callers.append(f"{caller().principal} {caller().tenant_id}")
        self.deadlines.append(deadline.remaining())
        if request.tenant_id:
            suspended = self.tenants.get(request.tenant_id)
            if suspended is None:
                raise NotFound("No such tenant.", reason="TENANT_NOT_FOUND")
            return pb.VerifyCredentialResponse(tenant_id=request.tenant_id, tenant_status=_STATUSES[suspended])
        key = self.keys.get(request.digest)
        if key is None:
            raise Unauthenticated("No such key.", reason="CREDENTIAL_INVALID")
        return pb.VerifyCredentialResponse(
            tenant_id=str(key.tenant_id),
            api_key_id=str(key.key_id),
            expire_time=wire.to_optional_timestamp(key.expire_time),
            scopes=sorted(key.scopes),
            tenant_status=tenant_pb2.TENANT_STATUS_UNSPECIFIED if self.of_before else _STATUSES[key.suspended],
        )


@asynccontextmanager
async def registry(servicer: ApiKeys, port: int, service_key: str = SERVICE_KEY) -> AsyncIterator[None]:
    configured = settings(port=port, service_key=service_key)
    telemetry = Telemetry.start("registry", configured)
    server = Server(
        "registry", configured, telemetry, Authenticator(configured, Keys(), ServiceTokens(service_key, "registry"))
    )
    server.add(
        api_key_service_pb2_grpc.add_ApiKeyServiceServicer_to_server,
        servicer,
        pb.DESCRIPTOR.services_by_name["ApiKeyService"],
    )
    await server.start()
    try:
        yield
    finally:
        await server.drain_and_stop()
        telemetry.shutdown()


class SessionSettings(ServerSettings):
    """A service that asks the registry."""

    service: ClassVar[str] = "session"


@asynccontextmanager
async def asking(port: int) -> AsyncIterator[Authenticator]:
    configured = SessionSettings(
        auth_mode="required", service_key=SecretStr(SERVICE_KEY), registry_address=f"127.0.0.1:{port}"
    )
    telemetry = Telemetry.start("session", configured)
    async with authenticating(configured, telemetry) as authenticator:
        yield authenticator
    telemetry.shutdown()


async def ask(authenticator: Authenticator, secret: str) -> Any:
    return await authenticator.authenticate((("authorization", f"Bearer {secret}"),), METHOD)


async def test_a_key_is_verified_by_the_registry_as_this_service_and_for_no_tenant() -> None:
    expires = datetime(2100, 1, 1, tzinfo=UTC)
    secret = api_keys.generate()
    servicer = ApiKeys({secret.digest: VerifiedKey(uuid4(), uuid4(), expires, EVERYTHING)})
    [port] = free_ports(1)
    async with registry(servicer, port), asking(port) as authenticator:
        with deadline.within(0.05):
            identity = await ask(authenticator, secret.secret)
        assert identity.tenant_id == servicer.keys[secret.digest].tenant_id
        with pytest.raises(Unauthenticated):
            await ask(authenticator, api_keys.generate().secret)
    assert servicer.callers == ["service:session None"] * 2
    # The lookup serves everybody who asks for this key: its time is its own.
    assert all(left is not None and left > 1 for left in servicer.deadlines)


async def test_a_registry_that_is_away_is_no_verdict_on_the_key() -> None:
    [port] = free_ports(1)
    async with asking(port) as authenticator:
        with pytest.raises(Unavailable) as refusal:
            await ask(authenticator, api_keys.generate().secret)
        assert refusal.value.reason == "IDENTITY_UNAVAILABLE"


async def test_a_registry_with_another_service_key_is_no_verdict_either() -> None:
    secret = api_keys.generate()
    servicer = ApiKeys({secret.digest: VerifiedKey(uuid4(), uuid4(), None, EVERYTHING)})
    [port] = free_ports(1)
    async with registry(servicer, port, service_key=SERVICE_KEY[::-1]), asking(port) as authenticator:
        with pytest.raises(Unavailable):
            await ask(authenticator, secret.secret)
    assert servicer.callers == []


async def test_a_registry_that_went_and_came_back_is_asked_again() -> None:
    secret = api_keys.generate()
    servicer = ApiKeys({secret.digest: VerifiedKey(uuid4(), uuid4(), None, EVERYTHING)})
    [port] = free_ports(1)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        verifier = RegistryVerifier(channel, ServiceTokens(SERVICE_KEY, "session"))
        async with registry(servicer, port):
            assert await verifier.verify(secret.digest) is not None
        with pytest.raises(Unavailable):
            await verifier.verify(secret.digest)
        async with registry(servicer, port):
            await channel.channel_ready()
            assert await verifier.verify(secret.digest) is not None


async def test_the_registry_says_what_a_key_may_do_and_whether_its_tenant_is_suspended() -> None:
    free, bound = api_keys.generate(), api_keys.generate()
    scopes = frozenset({"sessions.read", "agents.*"})
    servicer = ApiKeys(
        {
            free.digest: VerifiedKey(uuid4(), uuid4(), None, scopes),
            bound.digest: VerifiedKey(uuid4(), uuid4(), None, scopes, suspended=True),
        }
    )
    [port] = free_ports(1)
    async with registry(servicer, port), asking(port) as authenticator:
        assert (await ask(authenticator, free.secret)).scopes == scopes
        with pytest.raises(PermissionDenied) as refusal:
            await ask(authenticator, bound.secret)
        assert refusal.value.reason == "TENANT_SUSPENDED"


async def test_a_registry_of_the_release_before_has_keys_that_may_do_everything() -> None:
    secret = api_keys.generate()
    servicer = ApiKeys({secret.digest: VerifiedKey(uuid4(), uuid4(), None, frozenset())})
    servicer.of_before = True
    [port] = free_ports(1)
    async with registry(servicer, port), asking(port) as authenticator:
        assert (await ask(authenticator, secret.secret)).scopes == EVERYTHING


async def test_the_registry_says_whether_a_tenant_is_suspended() -> None:
    active, suspended, nobody = uuid4(), uuid4(), uuid4()
    servicer = ApiKeys({})
    servicer.tenants = {str(active): False, str(suspended): True}
    [port] = free_ports(1)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        verifier = RegistryVerifier(channel, ServiceTokens(SERVICE_KEY, "session"))
        async with registry(servicer, port):
            found = [await verifier.suspended(tenant_id) for tenant_id in (active, suspended, nobody)]
        assert found == [False, True, None]
        with pytest.raises(Unavailable):
            await verifier.suspended(active)
