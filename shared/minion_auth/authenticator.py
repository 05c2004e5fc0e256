"""From a call's metadata to its caller: which credential, whose, and whether it may call this method."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

from minion_errors import InvalidArgument, MinionError, PermissionDenied, Unauthenticated, Unavailable

from minion_auth import api_keys
from minion_auth.bounded import BoundedCache
from minion_auth.identity import CallerKind, Identity
from minion_auth.permissions import RULES, Rule
from minion_auth.service_tokens import ServiceTokens
from minion_auth.settings import AuthSettings

TENANT_METADATA = "minion-tenant"
# The tenant of everybody where authentication is switched off.
DEVELOPMENT_IDENTITY = Identity(kind=CallerKind.TENANT, tenant_id=UUID(int=1), principal="development")

_MAXIMUM_CREDENTIAL_CHARACTERS = 4_096
_KNOWN_SIZE = 16_384
_UNKNOWN_SIZE = 4_096
# While the registry is away, one call in this time asks for a key again; the others live on what is known.
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class VerifiedKey:
    """What the registry says of a working API key; `expire_time` None means that it never expires."""

    key_id: UUID
    tenant_id: UUID
    expire_time: datetime | None


class CredentialVerifier(Protocol):
    """Looks an API key up by its digest: the registry in its database, the other services by asking the registry."""

    async def verify(self, digest: bytes) -> VerifiedKey | None:
        """Gives the key, or None when it is unknown, revoked or expired.

        Raises:
            Unavailable: it can't be looked up now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Remembered:
    """How many keys an authenticator remembers as good and as none."""

    known: int
    unknown: int


@dataclass(slots=True)
class _Known:
    identity: Identity
    expires: float | None  # wall clock, seconds
    checked: float  # monotonic, as the two below
    ask_again: float


class Authenticator:
    """Authenticates and authorizes calls; safe for any number of calls at once on one event loop.

    A key that was found good is believed for `credential_cache_seconds`, one that was not for as long. While the
    registry can't be asked, keys seen good stay so for `credential_grace_seconds` more.
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
        self._cache_seconds = settings.credential_cache_seconds
        self._grace_seconds = settings.credential_grace_seconds
        self._verifier = verifier
        self._tokens = tokens
        self._monotonic = monotonic
        self._wall = wall
        self._rules = rules
        self._known: BoundedCache[bytes, _Known] = BoundedCache(_KNOWN_SIZE)
        self._unknown: BoundedCache[bytes, float] = BoundedCache(_UNKNOWN_SIZE)
        self._lookups: dict[bytes, asyncio.Task[Identity]] = {}

    async def authenticate(self, metadata: Iterable[tuple[str, str | bytes]], method: str) -> Identity:
        """Gives the caller of `method` (`/minion.session.v1.SessionService/GetSession`).

        Raises:
            Unauthenticated: no credential (`CREDENTIAL_MISSING`), or none that is good (`CREDENTIAL_INVALID`).
            PermissionDenied: the caller may not call the method (`PERMISSION_MISSING`).
            InvalidArgument: `minion-tenant` is not a UUID.
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
                named_tenant = value
        if not self._required:
            return self._undemanding(credential)
        identity = await self._identify(credential)
        rule = self._rules.get(method)
        if rule is None or identity.kind not in rule.callers:
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
        return Remembered(known=len(self._known), unknown=len(self._unknown))

    def forget(self) -> None:
        """Drops every remembered key, so that the next calls ask anew."""
        self._known.clear()
        self._unknown.clear()

    def _undemanding(self, credential: str | bytes | None) -> Identity:
        # Services still say for whom they act, so that audit rows name the principal in this mode too.
        token = _bearer(credential) if credential is not None else None
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
        token = _bearer(credential)
        if token is None:
            raise _invalid()
        if token.startswith(api_keys.PREFIX):
            return await self._by_api_key(token)
        if self._tokens is not None and token.count(".") == 2:
            return self._tokens.verify(token)
        if self._operator is not None and hmac.compare_digest(_sha256(token), self._operator):
            return Identity(kind=CallerKind.OPERATOR, tenant_id=None, principal="operator")
        raise _invalid()

    async def _by_api_key(self, secret: str) -> Identity:
        if not api_keys.is_well_formed(secret):
            raise _invalid()
        digest = api_keys.digest(secret)
        now = self._monotonic()
        known = self._known.get(digest)
        if known is not None:
            if known.expires is not None and self._wall() >= known.expires:
                raise _invalid()
            if now < known.ask_again:
                return known.identity
        elif (self._unknown.get(digest) or 0.0) > now:
            raise _invalid()
        # Calls that come at once with one key share a lookup; it outlives a caller who goes away meanwhile.
        lookup = self._lookups.get(digest)
        if lookup is None:
            lookup = asyncio.get_running_loop().create_task(self._look_up(digest))
            self._lookups[digest] = lookup
            lookup.add_done_callback(lambda done: self._finish(digest, done))
        return await asyncio.shield(lookup)

    async def _look_up(self, digest: bytes) -> Identity:
        started = self._monotonic()
        try:
            key = await self._verifier.verify(digest)
        except Unavailable as fault:
            return self._by_grace(digest, fault)
        if key is None or (
            key.expire_time is not None and key.expire_time <= datetime.fromtimestamp(self._wall(), UTC)
        ):
            self._known.drop(digest)
            self._unknown.put(digest, started + self._cache_seconds)
            raise _invalid()
        self._unknown.drop(digest)
        identity = Identity(kind=CallerKind.TENANT, tenant_id=key.tenant_id, principal=f"key:{key.key_id}")
        expires = key.expire_time.timestamp() if key.expire_time is not None else None
        # Counted from before the question was asked, so that a revocation is felt within the cache's time of it.
        self._known.put(digest, _Known(identity, expires, started, started + self._cache_seconds))
        return identity

    def _by_grace(self, digest: bytes, fault: Unavailable) -> Identity:
        now = self._monotonic()
        known = self._known.get(digest)
        if known is not None and now < known.checked + self._cache_seconds + self._grace_seconds:
            known.ask_again = now + _RETRY_SECONDS
            return known.identity
        raise Unavailable(
            "The credential can't be checked now.",
            reason="IDENTITY_UNAVAILABLE",
            retry_after=fault.retry_after or timedelta(seconds=_RETRY_SECONDS),
        ) from fault

    def _finish(self, digest: bytes, done: "asyncio.Task[Identity]") -> None:
        self._lookups.pop(digest, None)
        if not done.cancelled():
            # Read, so that a lookup whose callers all went away doesn't complain of an exception nobody saw.
            done.exception()


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
            "`minion-tenant` must be a tenant's UUID.", reason="TENANT_MISSING", metadata={"metadata": TENANT_METADATA}
        ) from fault
    return Identity(kind=CallerKind.OPERATOR, tenant_id=tenant_id, principal=identity.principal)


def _bearer(credential: str | bytes) -> str | None:
    if len(credential) > _MAXIMUM_CREDENTIAL_CHARACTERS or not isinstance(credential, str):
        return None
    if credential[:7].lower() != "bearer ":
        return None
    return credential[7:].strip() or None


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _invalid() -> MinionError:
    # One text for every cause: whoever guesses learns nothing.
    return Unauthenticated("The credential is not valid.", reason="CREDENTIAL_INVALID")
