"""Rows of API keys."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
from minion_auth import ApiKeySecret, VerifiedKey
from minion_errors import NotFound
from minion_postgres import Database, Record, Transaction, queries

from minion_registry.api_keys.domain import ApiKey, LockedKey, NewApiKey
from minion_registry.tenants.domain import TenantStatus

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
                list(new.scopes),
                new.replaces,
            )
        except asyncpg.ForeignKeyViolationError as error:
            raise NotFound(
                "There is no such tenant.", reason="TENANT_NOT_FOUND", metadata={"tenant_id": str(tenant_id)}
            ) from error
        assert row is not None
        return _api_key(row)

    async def lock(self, transaction: Transaction, tenant_id: UUID, api_key_id: UUID) -> LockedKey:
        """Gives a key, locked until the transaction ends, with the transaction's time.

        Raises NotFound (API_KEY_NOT_FOUND).
        """
        row = _found(await transaction.fetch_one(_QUERIES.get_api_key, tenant_id, api_key_id), api_key_id)
        return LockedKey(_api_key(row), row["made_for"], row["now"])

    async def page(
        self, transaction: Transaction, tenant_id: UUID, before: tuple[datetime, UUID], count: int
    ) -> Sequence[ApiKey]:
        """Returns at most `count` keys that were made before one, newest first."""
        return [_api_key(row) for row in await transaction.fetch(_QUERIES.list_api_keys, tenant_id, *before, count)]

    async def retire(self, transaction: Transaction, tenant_id: UUID, api_key_id: UUID, overlap: timedelta) -> ApiKey:
        """Lets a key of the transaction's tenant work for `overlap` more, and no longer than it would have."""
        await transaction.execute(_QUERIES.retire_api_key, api_key_id, overlap)
        return (await self.lock(transaction, tenant_id, api_key_id)).api_key

    async def revoke(self, transaction: Transaction, tenant_id: UUID, api_key_id: UUID) -> ApiKey:
        """Raises NotFound (API_KEY_NOT_FOUND)."""
        return _api_key(_found(await transaction.fetch_one(_QUERIES.revoke_api_key, tenant_id, api_key_id), api_key_id))

    async def verify(self, digest: bytes) -> VerifiedKey | None:
        """Finds whose valid key it is, in one round trip; None when it is nobody's."""
        row = await self._database.fetch_one(_QUERIES.verify_credential, digest)
        if row is None:
            return None
        return VerifiedKey(
            key_id=row["api_key_id"],
            tenant_id=row["tenant_id"],
            expire_time=row["expire_time"],
            scopes=frozenset(row["scopes"]),
            suspended=row["tenant_status"] == TenantStatus.SUSPENDED.value,
        )

    async def suspended(self, tenant_id: UUID) -> bool | None:
        """Tells whether a tenant is suspended, in one round trip; None when there is no such tenant."""
        status = await self._database.fetch_value(_QUERIES.tenant_status, tenant_id)
        return None if status is None else status == TenantStatus.SUSPENDED.value


def _found(row: Record | None, api_key_id: UUID) -> Record:
    if row is None:
        raise NotFound(
            "There is no such API key.", reason="API_KEY_NOT_FOUND", metadata={"api_key_id": str(api_key_id)}
        )
    return row


def _api_key(row: Record) -> ApiKey:
    return ApiKey(
        api_key_id=row["api_key_id"],
        display_name=row["display_name"],
        prefix=row["prefix"],
        create_time=row["create_time"],
        expire_time=row["expire_time"],
        revoke_time=row["revoke_time"],
        scopes=tuple(row["scopes"]),
        replaces=row["replaces_api_key_id"],
    )
