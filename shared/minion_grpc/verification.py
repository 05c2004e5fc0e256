"""API keys verified by asking the registry."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from uuid import UUID

import grpc
from minion.registry.v1 import api_key_service_pb2 as pb
from minion.registry.v1 import api_key_service_pb2_grpc
from minion_auth import Authenticator, ServiceTokens, VerifiedKey
from minion_errors import Unavailable
from minion_telemetry import Telemetry

from minion_grpc import deadline, peer_errors
from minion_grpc.channel import connect
from minion_grpc.settings import ServerSettings

_TIMEOUT_SECONDS = 2.0

# What `connect` may try again for this channel's user.
RETRYABLE = ("/minion.registry.v1.ApiKeyService/VerifyCredential",)


class RegistryVerifier:
    """Verifies keys by `registry.VerifyCredential`, as this service and for no tenant."""

    def __init__(self, channel: grpc.aio.Channel, tokens: ServiceTokens) -> None:
        self._stub = api_key_service_pb2_grpc.ApiKeyServiceStub(channel)
        self._tokens = tokens

    async def verify(self, digest: bytes) -> VerifiedKey | None:
        """Gives the key, or None when it is unknown, revoked or expired.

        Raises:
            Unavailable: the registry can't be asked now.
        """
        metadata = (("authorization", f"Bearer {self._tokens.mint()}"),)
        try:
            # Calls with the same key share the answer: it may not hang on the deadline of the one that came first.
            with deadline.within(_TIMEOUT_SECONDS):
                answer = await self._stub.VerifyCredential(pb.VerifyCredentialRequest(digest=digest), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED and peer_errors.blames_the_key(error):
                return None
            raise Unavailable("The registry can't be asked.", reason="IDENTITY_UNAVAILABLE") from error
        return VerifiedKey(
            key_id=UUID(answer.api_key_id),
            tenant_id=UUID(answer.tenant_id),
            expire_time=answer.expire_time.ToDatetime(UTC) if answer.HasField("expire_time") else None,
        )


class NoKeys:
    """Knows no key: for a service whose authentication is switched off, and that can ask nobody."""

    async def verify(self, digest: bytes) -> VerifiedKey | None:
        """Gives None."""
        del digest
        return None


@asynccontextmanager
async def authenticating(settings: ServerSettings, telemetry: Telemetry) -> AsyncIterator[Authenticator]:
    """Gives, for a block, what a service checks its callers with, API keys by asking the registry."""
    if settings.service_key is None:
        yield Authenticator(settings, NoKeys(), None)
        return
    tokens = ServiceTokens(settings.service_key.get_secret_value(), settings.service)
    async with connect(
        settings.registry_address, telemetry=telemetry, tls=settings.peer_files, retryable=RETRYABLE
    ) as channel:
        yield Authenticator(settings, RegistryVerifier(channel, tokens), tokens)
