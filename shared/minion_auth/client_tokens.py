"""JSON Web Tokens of an identity provider, as the other credential of a tenant's clients (RFC 7519, 8725, 9068)."""

import base64
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import jwt
from minion_errors import Unauthenticated

from minion_auth import strict_json
from minion_auth.bounded import BoundedCache
from minion_auth.identity import CallerKind, Identity
from minion_auth.key_sources import FileKeySource, HttpKeySource, IssuerKeys
from minion_auth.settings import AuthSettings

LONGEST_LIFE_SECONDS: Final = 86_400
_LEEWAY_SECONDS: Final = 5  # clocks differ
_CACHE_SIZE: Final = 16_384
# A service that acts for the subject names it in its own token, which must fit where this one did.
_MOST_SUBJECT_BYTES: Final = 256
_MOST_ID_CHARACTERS: Final = 256
# What a token may say that it is. Absent means a JWT; an access token says so (RFC 9068). A logout token, a proof of
# possession or an event that the same issuer signed is none.
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_REQUIRED: Final = ["exp", "iat", "iss", "aud", "sub"]


@dataclass(frozen=True, slots=True)
class _Verified:
    identity: Identity
    expires: float
    generation: int


class ClientTokens:
    """Verifies the tokens of one issuer for one audience, locally, with the issuer's own keys.

    Verified tokens are remembered, by the hash of the whole token, until they expire or the issuer's keys change: also
    while those can't be read.
    """

    def __init__(
        self,
        keys: IssuerKeys,
        *,
        issuer: str,
        audience: str,
        algorithms: frozenset[str],
        tenant_claim: str,
        scope_claim: str,
        default_scopes: frozenset[str],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._algorithms = algorithms
        self._tenant_claim = tenant_claim
        self._scope_claim = scope_claim
        self._default_scopes = default_scopes
        self._now = now
        self._verified: BoundedCache[bytes, _Verified] = BoundedCache(_CACHE_SIZE)

    def remembered(self, token: str) -> Identity | None:
        """Gives the identity of a token that was verified before; None where it must be verified, or verified again."""
        known = self._verified.get(hashlib.sha256(token.encode()).digest())
        if known is None or known.generation != self._keys.generation or not self._keys.go_on():
            return None
        return known.identity if self._now() < known.expires else None

    async def verify(self, token: str) -> Identity:
        """Gives the identity that a token proves: `user:<sub>` of the tenant that it names.

        Raises:
            Unauthenticated: it is malformed, forged, expired, not yet valid, or made for somebody else
                (`CREDENTIAL_INVALID`).
            Unavailable: the issuer's keys were never read, and can't be now (`IDENTITY_UNAVAILABLE`).
        """
        try:
            verified = await self._check(token)
        except (jwt.PyJWTError, ValueError, TypeError) as fault:
            raise _invalid() from fault
        self._verified.put(hashlib.sha256(token.encode()).digest(), verified)
        return verified.identity

    def forget(self) -> None:
        """Drops every remembered token."""
        self._verified.clear()

    async def _check(self, token: str) -> _Verified:
        head, body, _ = token.split(".")
        if "=" in token:
            # The library takes padding, which RFC 7515 has none of: each token is spelt in one way.
            raise ValueError("padded")
        algorithm, key_id = self._header(_content(head))
        claims = _content(body)
        key = await self._keys.find(key_id)
        if key is None or algorithm not in key.algorithms:
            raise ValueError("no key of the issuer verifies it")
        generation = self._keys.generation
        # Times are checked below, against this object's clock. The key is the issuer's by its id: `jku`, `x5u`, `x5c`
        # and `jwk` of the header decide nothing.
        jwt.decode(
            token,
            key.key,
            algorithms=[algorithm],
            audience=self._audience,
            issuer=self._issuer,
            options={
                "require": _REQUIRED,
                "strict_aud": True,
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
        return _Verified(self._identity(claims), self._expiry(claims), generation)

    def _header(self, header: Mapping[str, Any]) -> tuple[str, str]:
        algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise ValueError("an algorithm that is not allowed")
        if not isinstance(key_id, str) or not 0 < len(key_id) <= _MOST_ID_CHARACTERS:
            raise ValueError("no key id")
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise ValueError("no token for access")
        # Extensions that must be understood (none is), unencoded payloads, tokens in tokens, and encrypted ones.
        if any(name in header for name in ("crit", "b64", "cty", "enc", "zip")):
            raise ValueError("an extension")
        return algorithm, key_id

    def _expiry(self, claims: Mapping[str, Any]) -> float:
        now, expires, issued = self._now(), _time(claims["exp"]), _time(claims["iat"])
        starts = _time(claims["nbf"]) if "nbf" in claims else issued
        if not max(issued, starts) - _LEEWAY_SECONDS <= now < expires + _LEEWAY_SECONDS:
            raise ValueError("not of this time")
        if expires - min(issued, now) > LONGEST_LIFE_SECONDS + _LEEWAY_SECONDS:
            raise ValueError("good for too long")
        return expires + _LEEWAY_SECONDS

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        subject, tenant_id = claims["sub"], claims.get(self._tenant_claim)
        if not isinstance(subject, str) or not 0 < len(subject.encode()) <= _MOST_SUBJECT_BYTES:
            raise ValueError("no subject")
        if not subject.isprintable():
            raise ValueError("a subject that can't be shown")
        if not isinstance(tenant_id, str) or str(UUID(tenant_id)) != tenant_id.lower():
            raise ValueError("no tenant")
        return Identity(
            kind=CallerKind.TENANT,
            tenant_id=UUID(tenant_id),
            principal=f"user:{subject}",
            scopes=self._scopes(claims),
        )

    def _scopes(self, claims: Mapping[str, Any]) -> frozenset[str]:
        if self._scope_claim not in claims:
            return self._default_scopes
        given = claims[self._scope_claim]
        if isinstance(given, str):
            return frozenset(given.split())
        if not isinstance(given, list) or not all(isinstance(scope, str) for scope in given):
            raise ValueError("scopes of a wrong type")
        return frozenset(given)


def configured(
    settings: AuthSettings, *, now: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
) -> ClientTokens | None:
    """Makes what verifies a deployment's JWTs, or None where it takes none."""
    if settings.jwt_issuer is None or settings.jwt_audience is None or settings.jwt_jwks is None:
        return None
    address = settings.jwt_jwks
    source = HttpKeySource(address) if "://" in address else FileKeySource(Path(address))
    return ClientTokens(
        IssuerKeys(source, monotonic=monotonic),
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        algorithms=frozenset(settings.jwt_algorithms),
        tenant_claim=settings.jwt_tenant_claim,
        scope_claim=settings.jwt_scope_claim,
        default_scopes=frozenset(settings.jwt_default_scopes),
        now=now,
    )


def _content(part: str) -> dict[str, Any]:
    """Reads what a part says by stricter rules than the library's, which reads it too: it has one meaning or none."""
    content = strict_json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    if not isinstance(content, dict):
        raise TypeError("no JSON object")
    return content


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("no time")
    try:
        moment = float(value)
    except OverflowError as fault:
        raise ValueError("no time of this world") from fault
    if not math.isfinite(moment):
        raise ValueError("no time of this world")
    return moment


def _invalid() -> Unauthenticated:
    # One text for every cause: whoever guesses learns nothing.
    return Unauthenticated("The credential is not valid.", reason="CREDENTIAL_INVALID")
