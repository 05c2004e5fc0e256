"""Rows of API keys."""

from uuid import UUID

import asyncpg
from minion_auth import ApiKeySecret, VerifiedKey
from minion_errors import NotFound
from minion_postgres import Database, Record, Transaction, queries

from minion_registry.api_keys.domain import ApiKey, NewApiKey

_QUERIES = queries.load(__package__)


class ApiKeyStore:
    """Reads and writes API keys; it is a `minion_auth.CredentialVerifier` too, over its own rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self, transaction: Transaction, tenant_id: UUID, api_key_id: UUID, new: NewApiKey, secret: ApiKeySecret
    ) -> ApiKey:
        """Raises NotFound (TENANT_NOT_FOUND) when there is no such tenant."""
        try:
            row = await transaction.fetch_one(
                _QUERIES.insert_api_key,
                tenant_id,
                api_key_id,
                new.display_name,
                secret.prefix,
                secret.digest,
                new.ttl,
            )
        except asyncpg.ForeignKeyViolationError as error:
            raise NotFound(
                "There is no such tenant.", reason="TENANT_NOT_FOUND", metadata={"tenant_id": str(tenant_id)}
            ) from error
        assert row is not None
        return _api_key(row)

    async def revoke(self, transaction: Transaction, tenant_id: UUID, api_key_id: UUID) -> ApiKey:
        """Raises NotFound (API_KEY_NOT_FOUND)."""
        row = await transaction.fetch_one(_QUERIES.revoke_api_key, tenant_id, api_key_id)
        if row is None:
            raise NotFound(
                "There is no such API key.", reason="API_KEY_NOT_FOUND", metadata={"api_key_id": str(api_key_id)}
            )
        return _api_key(row)

    async def verify(self, digest: bytes) -> VerifiedKey | None:
        """Finds whose valid key it is, in one round trip; None when it is nobody's."""
        row = await self._database.fetch_one(_QUERIES.verify_credential, digest)
        if row is None:
            return None
        return VerifiedKey(key_id=row["api_key_id"], tenant_id=row["tenant_id"], expire_time=row["expire_time"])


def _api_key(row: Record) -> ApiKey:
    return ApiKey(
        api_key_id=row["api_key_id"],
        display_name=row["display_name"],
        prefix=row["prefix"],
        create_time=row["create_time"],
        expire_time=row["expire_time"],
        revoke_time=row["revoke_time"],
    )
