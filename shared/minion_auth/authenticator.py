"""From a call's metadata to its caller: which credential, whose, and whether it may call this method."""

import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from minion_errors import InvalidArgument, MinionError, PermissionDenied, Unauthenticated

from minion_auth import api_keys, bearer, client_tokens, scopes, service_tokens
from minion_auth.identity import CallerKind, Identity
from minion_auth.lookups import Lookups
from minion_auth.permissions import RULES, Rule
from minion_auth.service_tokens import ServiceTokens
from minion_auth.settings import AuthSettings

TENANT_METADATA = "minion-tenant"
# The tenant of everybody where authentication is switched off.
DEVELOPMENT_IDENTITY = Identity(kind=CallerKind.TENANT, tenant_id=UUID(int=1), principal="development")


@dataclass(frozen=True, slots=True)
class VerifiedKey:
    """What the registry says of a working API key; `expire_time` None means that it never expires."""

    key_id: UUID
    tenant_id: UUID
    expire_time: datetime | None
    scopes: frozenset[str]
    suspended: bool = False  # the tenant


class CredentialVerifier(Protocol):
    """Looks credentials up: the registry in its database, the other services by asking the registry."""

    async def verify(self, digest: bytes) -> VerifiedKey | None:
        """Gives the API key of a digest, or None when it is unknown, revoked or expired.

        Raises:
            Unavailable, DeadlineExceeded: it can't be looked up now.
        """
        ...

    async def suspended(self, tenant_id: UUID) -> bool | None:
        """Tells whether a tenant is suspended; None when there is no such tenant.

        Raises:
            Unavailable, DeadlineExceeded: it can't be looked up now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Remembered:
    """How many keys an authenticator remembers as good and as none."""

    known: int
    unknown: int


@dataclass(frozen=True, slots=True)
class _Key:
    identity: Identity
    expires: float | None  # wall clock, seconds
    suspended: bool


class Authenticator:
    """Authenticates and authorizes calls; safe for any number of calls at once on one event loop.

    What the registry says of a key or a tenant is believed for `credential_cache_seconds`. While it can't be asked,
    keys and tenants seen stay as they were for `credential_grace_seconds` more. JWTs and service tokens are verified
    here, and remembered.
    """

    def __init__(
        self,
        settings: AuthSettings,
        verifier: CredentialVerifier,
        tokens: ServiceTokens | None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rules: Mapping[str, Rule] = RULES,
    ) -> None:
        self._required = settings.auth_mode == "required"
        self._operator = _sha256(settings.operator_key.get_secret_value()) if settings.operator_key else None
        self._verifier = verifier
        self._tokens = tokens
        self._wall = wall
        self._rules = rules
        self._clients = client_tokens.configured(settings, now=wall, monotonic=monotonic)
        remembering = {
            "cache_seconds": settings.credential_cache_seconds,
            "grace_seconds": settings.credential_grace_seconds,
        }
        self._keys: Lookups[_Key] = Lookups(self._ask_for_key, monotonic=monotonic, **remembering)
        self._tenants: Lookups[bool] = Lookups(self._ask_for_tenant, monotonic=monotonic, **remembering)

    async def authenticate(self, metadata: Iterable[tuple[str, str | bytes]], method: str) -> Identity:
        """Gives the caller of `method` (`/minion.session.v1.SessionService/GetSession`).

        Raises:
            Unauthenticated: no credential (`CREDENTIAL_MISSING`), or none that is good (`CREDENTIAL_INVALID`).
            PermissionDenied: the caller may not call the method (`PERMISSION_MISSING`), or its tenant is suspended
                (`TENANT_SUSPENDED`).
            InvalidArgument: `minion-tenant` is not a UUID, or stands twice.
            Unavailable: the credential can't be checked now (`IDENTITY_UNAVAILABLE`).
        """
        credential: str | bytes | None = None
        named_tenant: str | bytes | None = None
        for key, value in metadata:
            if key == "authorization":
                if credential is not None:
                    # Two credentials: whichever were taken, a proxy before us may have looked at the other.
                    raise _invalid()
                credential = value
            elif key == TENANT_METADATA:
                # Two tenants are none, for the same reason.
                named_tenant = value if named_tenant is None else ""
        if not self._required:
            return self._undemanding(credential)
        identity = await self._identify(credential)
        rule = self._rules.get(method)
        if (
            rule is None
            or identity.kind not in rule.callers
            or (identity.kind is CallerKind.TENANT and not scopes.cover(identity.scopes, rule.permission))
        ):
            raise PermissionDenied(
                "The caller may not call this method.",
                reason="PERMISSION_MISSING",
                metadata={"permission": rule.permission if rule else "none", "principal": identity.principal},
                note=f"tenant {identity.tenant_id or 'none'}",
            )
        if named_tenant is not None:
            return _naming_tenant(identity, named_tenant)
        return identity

    @property
    def remembered(self) -> Remembered:
        """How many keys are remembered now."""
        return Remembered(known=self._keys.known, unknown=self._keys.unknown)

    def forget(self) -> None:
        """Drops every remembered credential, so that the next calls are checked anew."""
        self._keys.forget()
        self._tenants.forget()
        if self._clients is not None:
            self._clients.forget()

    def _undemanding(self, credential: str | bytes | None) -> Identity:
        # Services still say for whom they act, so that audit rows name the principal in this mode too.
        token = bearer.token_of(credential) if credential is not None else None
        if self._tokens is not None and token is not None and token.count(".") == 2:
            try:
                return self._tokens.verify(token)
            except Unauthenticated:
                return DEVELOPMENT_IDENTITY
        return DEVELOPMENT_IDENTITY

    async def _identify(self, credential: str | bytes | None) -> Identity:
        if credential is None:
            raise Unauthenticated(
                "Send a credential as `authorization: Bearer …` metadata.", reason="CREDENTIAL_MISSING"
            )
        token = bearer.token_of(credential)
        if token is None:
            raise _invalid()
        if token.startswith(api_keys.PREFIX):
            return await self._by_api_key(token)
        if token.count(".") == 2:
            if self._clients is not None:
                identity = self._clients.remembered(token)
                # What it says of itself chooses who verifies it; each verifier takes its own kind alone.
                if identity is None and not service_tokens.claims_to_be_one(token):
                    identity = await self._clients.verify(token)
                if identity is not None:
                    return await self._of_working_tenant(identity)
            if self._tokens is not None:
                return self._tokens.verify(token)
        if self._operator is not None and hmac.compare_digest(_sha256(token), self._operator):
            return Identity(kind=CallerKind.OPERATOR, tenant_id=None, principal="operator")
        raise _invalid()

    async def _by_api_key(self, secret: str) -> Identity:
        if not api_keys.is_well_formed(secret):
            raise _invalid()
        key = await self._keys.get(api_keys.digest(secret))
        if key is None or (key.expires is not None and self._wall() >= key.expires):
            raise _invalid()
        if key.suspended:
            raise _suspended(key.identity)
        return key.identity

    async def _of_working_tenant(self, identity: Identity) -> Identity:
        assert identity.tenant_id is not None
        suspended = await self._tenants.get(identity.tenant_id.bytes)
        if suspended is None:
            raise _invalid()
        if suspended:
            raise _suspended(identity)
        return identity

    async def _ask_for_key(self, digest: bytes) -> _Key | None:
        found = await self._verifier.verify(digest)
        if found is None:
            return None
        return _Key(
            identity=Identity(
                kind=CallerKind.TENANT,
                tenant_id=found.tenant_id,
                principal=f"key:{found.key_id}",
                scopes=found.scopes,
            ),
            expires=found.expire_time.timestamp() if found.expire_time is not None else None,
            suspended=found.suspended,
        )

    async def _ask_for_tenant(self, tenant_id: bytes) -> bool | None:
        return await self._verifier.suspended(UUID(bytes=tenant_id))


def _naming_tenant(identity: Identity, named: str | bytes) -> Identity:
    if identity.kind is not CallerKind.OPERATOR:
        raise PermissionDenied(
            "Operators alone name a tenant in `minion-tenant`; any other credential says it itself.",
            reason="PERMISSION_MISSING",
            metadata={"permission": "tenants.name", "principal": identity.principal},
        )
    try:
        tenant_id = UUID(named if isinstance(named, str) else named.decode())
    except ValueError as fault:
        raise InvalidArgument(
            "`minion-tenant` must be a tenant's UUID, and stand once.",
            reason="TENANT_MISSING",
            metadata={"metadata": TENANT_METADATA},
        ) from fault
    return Identity(kind=CallerKind.OPERATOR, tenant_id=tenant_id, principal=identity.principal)


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _suspended(identity: Identity) -> MinionError:
    return PermissionDenied(
        "The caller's tenant is suspended; an operator resumes it.",
        reason="TENANT_SUSPENDED",
        metadata={"tenant_id": str(identity.tenant_id), "principal": identity.principal},
    )


def _invalid() -> MinionError:
    # One text for every cause: whoever guesses learns nothing.
    return Unauthenticated("The credential is not valid.", reason="CREDENTIAL_INVALID")
