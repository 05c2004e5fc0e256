"""Serves minion.registry.v1.ApiKeyService."""

from typing import Any
from uuid import UUID

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

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Context) -> pb.ListApiKeysResponse:
        size, token = convert.list_from_proto(request)
        found, more = await self._api_keys.page(size, token)
        return pb.ListApiKeysResponse(
            api_keys=[convert.api_key_to_proto(api_key) for api_key in found], next_page_token=more
        )

    async def RotateApiKey(self, request: pb.RotateApiKeyRequest, context: Context) -> pb.RotateApiKeyResponse:
        rotation, key = convert.rotate_from_proto(request)
        rotated, secret = await self._api_keys.rotate(rotation, key)
        return pb.RotateApiKeyResponse(
            api_key=convert.api_key_to_proto(rotated.api_key),
            secret=secret,
            replaced=convert.api_key_to_proto(rotated.replaced),
        )

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Context) -> pb.RevokeApiKeyResponse:
        api_key_id, key = convert.revoke_from_proto(request)
        revoked = await self._api_keys.revoke(api_key_id, key)
        return pb.RevokeApiKeyResponse(api_key=convert.api_key_to_proto(revoked))

    async def VerifyCredential(
        self, request: pb.VerifyCredentialRequest, context: Context
    ) -> pb.VerifyCredentialResponse:
        asked = convert.verify_from_proto(request)
        if isinstance(asked, UUID):
            return convert.standing_to_proto(asked, await self._api_keys.suspended(asked))
        return convert.verified_to_proto(await self._api_keys.verify(asked))
