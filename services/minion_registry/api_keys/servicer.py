"""Serves minion.registry.v1.ApiKeyService."""

from typing import Any

import grpc
from minion.registry.v1 import api_key_service_pb2 as pb
from minion.registry.v1.api_key_service_pb2_grpc import ApiKeyServiceServicer

from minion_registry.api_keys import convert
from minion_registry.api_keys.service import ApiKeys

Context = grpc.aio.ServicerContext[Any, Any]


class ApiKeyServicer(ApiKeyServiceServicer):
    """Serves minion.registry.v1.ApiKeyService."""

    def __init__(self, api_keys: ApiKeys) -> None:
        self._api_keys = api_keys

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Context) -> pb.CreateApiKeyResponse:
        new, key = convert.create_from_proto(request)
        created, secret = await self._api_keys.create(new, key)
        return pb.CreateApiKeyResponse(api_key=convert.api_key_to_proto(created), secret=secret)

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Context) -> pb.RevokeApiKeyResponse:
        api_key_id, key = convert.revoke_from_proto(request)
        revoked = await self._api_keys.revoke(api_key_id, key)
        return pb.RevokeApiKeyResponse(api_key=convert.api_key_to_proto(revoked))

    async def VerifyCredential(
        self, request: pb.VerifyCredentialRequest, context: Context
    ) -> pb.VerifyCredentialResponse:
        verified = await self._api_keys.verify(convert.digest_from_proto(request))
        return convert.verified_to_proto(verified)
