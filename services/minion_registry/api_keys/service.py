"""What is done with API keys."""

from uuid import UUID

from minion_auth import VerifiedKey, api_keys, tenant
from minion_errors import Unauthenticated
from minion_postgres import Database, Idempotent, Key, Transaction
from uuid_utils.compat import uuid7

from minion_registry.api_keys.domain import ApiKey, NewApiKey
from minion_registry.api_keys.store import ApiKeyStore

_KEPT = Idempotent(ApiKey, schema="registry")


class ApiKeys:
    """Keeps the credentials of tenants."""

    def __init__(self, database: Database, store: ApiKeyStore) -> None:
        self._database = database
        self._store = store

    async def create(self, new: NewApiKey, key: Key | None) -> tuple[ApiKey, str]:
        """Creates a key; returns it with its secret, which is empty when the request is a repeat.

        Raises NotFound (TENANT_NOT_FOUND).
        """
        tenant_id = tenant()
        secret = api_keys.generate()
        shown = ""

        async def write(transaction: Transaction) -> ApiKey:
            nonlocal shown
            created = await self._store.insert(transaction, tenant_id, uuid7(), new, secret)
            # Set by a write alone: what a repeat finds is the first result, which holds no secret.
            shown = secret.secret
            return created

        async with self._database.transaction(tenant_id) as transaction:
            created = await _KEPT.once(transaction, key, lambda: write(transaction))
        return created, shown

    async def revoke(self, api_key_id: UUID, key: Key | None) -> ApiKey:
        """Revokes a key for good. Raises NotFound (API_KEY_NOT_FOUND)."""
        tenant_id = tenant()
        async with self._database.transaction(tenant_id) as transaction:
            return await _KEPT.once(transaction, key, lambda: self._store.revoke(transaction, tenant_id, api_key_id))

    async def verify(self, digest: bytes) -> VerifiedKey:
        """Says whose key it is. Raises Unauthenticated (CREDENTIAL_INVALID) when it is nobody's, or no longer."""
        verified = await self._store.verify(digest)
        if verified is None:
            raise Unauthenticated("The credential is not valid.", reason="CREDENTIAL_INVALID")
        return verified
