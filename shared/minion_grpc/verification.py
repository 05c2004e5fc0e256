"""API keys and tenants looked up by asking the registry."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from uuid import UUID

import grpc
from minion.registry.v1 import api_key_service_pb2 as pb
from minion.registry.v1 import api_key_service_pb2_grpc, tenant_pb2
from minion_auth import EVERYTHING, Authenticator, ServiceTokens, VerifiedKey
from minion_errors import Unavailable
from minion_telemetry import Telemetry

from minion_grpc import deadline, peer_errors
from minion_grpc.channel import connect
from minion_grpc.settings import ServerSettings

# The time that the registry has to answer.
TIMEOUT_SECONDS = 2.0

# What `connect` may try again for this channel's user.
RETRYABLE = ("/minion.registry.v1.ApiKeyService/VerifyCredential",)


class RegistryVerifier:
    """Looks keys and tenants up by `registry.VerifyCredential`, as this service and for no tenant."""

    def __init__(self, channel: grpc.aio.Channel, tokens: ServiceTokens) -> None:
        self._stub = api_key_service_pb2_grpc.ApiKeyServiceStub(channel)
        self._tokens = tokens

    async def verify(self, digest: bytes) -> VerifiedKey | None:
        """Gives the key, or None when it is unknown, revoked or expired.

        Raises:
            Unavailable: the registry can't be asked now.
        """
        try:
            answer = await self._ask(pb.VerifyCredentialRequest(digest=digest))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED and peer_errors.blames_the_key(error):
                return None
            raise _away() from error
        # A registry of the release before this one knows neither scopes nor suspension: its keys may all.
        of_before = answer.tenant_status == tenant_pb2.TENANT_STATUS_UNSPECIFIED
        return VerifiedKey(
            key_id=UUID(answer.api_key_id),
            tenant_id=UUID(answer.tenant_id),
            expire_time=answer.expire_time.ToDatetime(UTC) if answer.HasField("expire_time") else None,
            scopes=EVERYTHING if of_before else frozenset(answer.scopes),
            suspended=_is_suspended(answer),
        )

    async def suspended(self, tenant_id: UUID) -> bool | None:
        """Tells whether a tenant is suspended; None when there is no such tenant.

        Raises:
            Unavailable: the registry can't be asked now.
        """
        try:
            return _is_suspended(await self._ask(pb.VerifyCredentialRequest(tenant_id=str(tenant_id))))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND and peer_errors.reason_of(error) == "TENANT_NOT_FOUND":
                return None
            raise _away() from error

    async def _ask(self, request: pb.VerifyCredentialRequest) -> pb.VerifyCredentialResponse:
        metadata = (("authorization", f"Bearer {self._tokens.mint()}"),)
        # Calls with the same credential share the answer: it may not hang on the deadline of the one that came first.
        with deadline.within(TIMEOUT_SECONDS):
            return await self._stub.VerifyCredential(request, metadata=metadata)


def _is_suspended(answer: pb.VerifyCredentialResponse) -> bool:
    return answer.tenant_status == tenant_pb2.TENANT_STATUS_SUSPENDED


def _away() -> Unavailable:
    return Unavailable("The registry can't be asked.", reason="IDENTITY_UNAVAILABLE")


class Nobody:
    """Knows no key and no tenant: for a service whose authentication is switched off, and that can ask nobody."""

    async def verify(self, digest: bytes) -> VerifiedKey | None:
        """Gives None."""
        del digest
        return None

    async def suspended(self, tenant_id: UUID) -> bool | None:
        """Gives None."""
        del tenant_id
        return None


@asynccontextmanager
async def authenticating(settings: ServerSettings, telemetry: Telemetry) -> AsyncIterator[Authenticator]:
    """Gives, for a block, what a service checks its callers with, keys and tenants by asking the registry."""
    if settings.service_key is None:
        yield Authenticator(settings, Nobody(), None)
        return
    tokens = ServiceTokens(settings.service_key.get_secret_value(), settings.service)
    async with connect(
        settings.registry_address, telemetry=telemetry, tls=settings.peer_files, retryable=RETRYABLE
    ) as channel:
        yield Authenticator(settings, RegistryVerifier(channel, tokens), tokens)
