"""What is done with API keys."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from minion_auth import VerifiedKey, api_keys, caller, scopes, tenant
from minion_errors import FailedPrecondition, NotFound, PermissionDenied, Unauthenticated
from minion_postgres import Database, Idempotent, Key, Transaction, pages
from uuid_utils.compat import uuid7

from minion_registry import paging
from minion_registry.api_keys.domain import ApiKey, NewApiKey, Rotated, Rotation
from minion_registry.api_keys.store import ApiKeyStore
from minion_registry.audit.domain import Entry
from minion_registry.audit.store import AuditStore

_KEPT = Idempotent(ApiKey, schema="registry")
_ROTATED = Idempotent(Rotated, schema="registry")
_FILTERS = {"list": "api_keys"}


class ApiKeys:
    """Keeps the credentials of tenants."""

    def __init__(self, database: Database, store: ApiKeyStore, audit: AuditStore) -> None:
        self._database = database
        self._store = store
        self._audit = audit

    async def create(self, new: NewApiKey, key: Key | None) -> tuple[ApiKey, str]:
        """Creates a key; returns it with its secret, which is empty when the request is a repeat.

        Raises NotFound (TENANT_NOT_FOUND), and PermissionDenied (PERMISSION_MISSING) where it may do more than the
        caller.
        """
        tenant_id = tenant()
        _check_scopes(new.scopes)
        secret = api_keys.generate()
        shown = ""

        async def write(transaction: Transaction) -> ApiKey:
            nonlocal shown
            created = await self._store.insert(transaction, tenant_id, uuid7(), new, secret)
            await self._audit.record(transaction, tenant_id, Entry("key.create", _told(created)))
            # Set by a write alone: what a repeat finds is the first result, which holds no secret.
            shown = secret.secret
            return created

        async with self._database.transaction(tenant_id) as transaction:
            created = await _KEPT.once(transaction, key, lambda: write(transaction))
        return created, shown

    async def page(self, size: int, token: str) -> tuple[Sequence[ApiKey], str]:
        """Returns a page of the tenant's keys, newest first, and the token of the next one, empty after the last.

        Raises InvalidArgument (PAGE_TOKEN_INVALID).
        """
        tenant_id = tenant()
        before = paging.place(token, _FILTERS)
        async with self._database.transaction(tenant_id) as transaction:
            found = await self._store.page(transaction, tenant_id, before, size + 1)
        last = found[size - 1] if len(found) > size else None
        return found[:size], pages.encode((last.create_time, last.api_key_id), _FILTERS) if last else ""

    async def rotate(self, rotation: Rotation, key: Key | None) -> tuple[Rotated, str]:
        """Makes a key that takes the place of another; returns both, and the secret, empty when it is a repeat.

        Raises NotFound (API_KEY_NOT_FOUND), FailedPrecondition (API_KEY_NOT_ACTIVE), and PermissionDenied
        (PERMISSION_MISSING) where the key may do more than the caller.
        """
        tenant_id = tenant()
        secret = api_keys.generate()
        shown = ""

        async def write(transaction: Transaction) -> Rotated:
            nonlocal shown
            locked = await self._store.lock(transaction, tenant_id, rotation.api_key_id)
            old = locked.api_key
            if not old.works_at(locked.now):
                raise FailedPrecondition(
                    "The API key is revoked or expired: create another.",
                    reason="API_KEY_NOT_ACTIVE",
                    metadata={"api_key_id": str(old.api_key_id)},
                )
            _check_scopes(old.scopes)
            new = NewApiKey(old.display_name, rotation.ttl or locked.made_for, old.scopes, replaces=old.api_key_id)
            created = await self._store.insert(transaction, tenant_id, uuid7(), new, secret)
            replaced = await self._store.retire(transaction, tenant_id, old.api_key_id, rotation.overlap)
            details = {**_told(created), "replaces": str(old.api_key_id)}
            await self._audit.record(transaction, tenant_id, Entry("key.rotate", details))
            shown = secret.secret
            return Rotated(created, replaced)

        async with self._database.transaction(tenant_id) as transaction:
            rotated = await _ROTATED.once(transaction, key, lambda: write(transaction))
        return rotated, shown

    async def revoke(self, api_key_id: UUID, key: Key | None) -> ApiKey:
        """Revokes a key for good.

        Raises NotFound (API_KEY_NOT_FOUND), and PermissionDenied (PERMISSION_MISSING) where it may do more than the
        caller.
        """
        tenant_id = tenant()

        async def write(transaction: Transaction) -> ApiKey:
            # Whoever may do less than a key doesn't end it either: it could lock out everybody above itself.
            found = (await self._store.lock(transaction, tenant_id, api_key_id)).api_key
            _check_scopes(found.scopes)
            if found.revoke_time is not None:
                return found
            revoked = await self._store.revoke(transaction, tenant_id, api_key_id)
            await self._audit.record(transaction, tenant_id, Entry("key.revoke", _told(revoked)))
            return revoked

        async with self._database.transaction(tenant_id) as transaction:
            return await _KEPT.once(transaction, key, lambda: write(transaction))

    async def verify(self, digest: bytes) -> VerifiedKey:
        """Says whose key it is. Raises Unauthenticated (CREDENTIAL_INVALID) when it is nobody's, or no longer."""
        verified = await self._store.verify(digest)
        if verified is None:
            raise Unauthenticated("The credential is not valid.", reason="CREDENTIAL_INVALID")
        return verified

    async def suspended(self, tenant_id: UUID) -> bool:
        """Tells whether a tenant is suspended. Raises NotFound (TENANT_NOT_FOUND)."""
        suspended = await self._store.suspended(tenant_id)
        if suspended is None:
            raise NotFound(
                "There is no such tenant.", reason="TENANT_NOT_FOUND", metadata={"tenant_id": str(tenant_id)}
            )
        return suspended


def _told(key: ApiKey) -> dict[str, Any]:
    """Says which key, for the audit: never a secret."""
    return {
        "api_key_id": str(key.api_key_id),
        "prefix": key.prefix,
        "display_name": key.display_name,
        "scopes": list(key.scopes),
    }


def _check_scopes(wanted: Sequence[str]) -> None:
    """Raises PermissionDenied (PERMISSION_MISSING) for scopes that the caller does not have itself."""
    beyond = scopes.beyond(wanted, caller().scopes)
    if beyond is not None:
        raise PermissionDenied(
            f"A key with the scope {beyond} may do more than the caller.",
            reason="PERMISSION_MISSING",
            metadata={"permission": beyond, "principal": caller().principal},
        )
