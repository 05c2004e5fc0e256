"""Short-lived tokens by which one service of a deployment proves itself to another, for a tenant and a principal."""

import hashlib
import time
from collections.abc import Callable
from uuid import UUID

import jwt
from minion_errors import Unauthenticated

from minion_auth.bounded import BoundedCache
from minion_auth.identity import CallerKind, Identity

_ALGORITHM = "HS256"
ISSUER = "minion"
_AUDIENCE = "minion"
_LIFETIME_SECONDS = 60
_LEEWAY_SECONDS = 5  # clocks of one deployment differ
_CACHE_SIZE = 4_096
# RFC 7518, 3.2: an HS256 key is at least as long as the hash.
MINIMUM_KEY_BYTES = 32
# The first part of each token that this release makes.
_HEAD = jwt.encode({}, "\0" * MINIMUM_KEY_BYTES, algorithm=_ALGORITHM).partition(".")[0]
_CLAIMS = ["exp", "nbf", "iat", "iss", "aud", "sub"]


class ServiceTokens:
    """Mints and verifies the tokens of one service with the deployment's service key (HS256, RFC 7519).

    Minted tokens are reused until half of their life is over; verified ones are remembered, by the hash of the whole
    token, until they expire: one turn makes many calls with the same token.
    """

    def __init__(self, service_key: str, service: str, *, now: Callable[[], float] = time.time) -> None:
        if len(service_key.encode()) < MINIMUM_KEY_BYTES:
            raise ValueError(f"a service key has at least {MINIMUM_KEY_BYTES} bytes")
        self._key = service_key
        self._service = service
        self._now = now
        self._minted: BoundedCache[tuple[UUID | None, str | None], tuple[float, str]] = BoundedCache(_CACHE_SIZE)
        self._verified: BoundedCache[bytes, tuple[float, Identity]] = BoundedCache(_CACHE_SIZE)

    def mint(self, tenant_id: UUID | None = None, principal: str | None = None) -> str:
        """Gives a token of this service, acting for a tenant and on behalf of a principal where they are given."""
        now = self._now()
        cached = self._minted.get((tenant_id, principal))
        # A clock that was set back since would leave it one of the future, which the others refuse until then.
        if cached is not None and 0 < cached[0] - now <= _LIFETIME_SECONDS / 2:
            return cached[1]
        claims: dict[str, object] = {
            "iss": ISSUER,
            "aud": _AUDIENCE,
            "sub": f"service:{self._service}",
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now) + _LIFETIME_SECONDS,
        }
        if tenant_id is not None:
            claims["act_for"] = str(tenant_id)
        if principal is not None:
            claims["obo"] = principal
        token = jwt.encode(claims, self._key, algorithm=_ALGORITHM)
        self._minted.put((tenant_id, principal), (now + _LIFETIME_SECONDS / 2, token))
        return token

    def verify(self, token: str) -> Identity:
        """Gives the identity that a token proves.

        Raises:
            Unauthenticated: it is malformed, forged, expired, not yet valid, or made for somebody else
                (`CREDENTIAL_INVALID`).
        """
        digest = hashlib.sha256(token.encode()).digest()
        now = self._now()
        cached = self._verified.get(digest)
        if cached is not None and cached[0] > now:
            return cached[1]
        try:
            # Times are checked below, against this object's clock; the algorithm is fixed, so `alg`, `jku`, `x5u` and
            # `jwk` of the header decide nothing.
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                issuer=ISSUER,
                options={
                    "require": _CLAIMS,
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            expires, starts = float(claims["exp"]), float(claims["nbf"])
            identity = _identity(claims)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as fault:
            raise _invalid() from fault
        if not starts - _LEEWAY_SECONDS <= now < expires + _LEEWAY_SECONDS:
            raise _invalid()
        self._verified.put(digest, (expires + _LEEWAY_SECONDS, identity))
        return identity


def claims_to_be_one(token: str) -> bool:
    """Tells whether a token says that it is a service's, which chooses the verifier and is trusted no further.

    Clients' tokens are signed by private keys; what says that it was signed by a shared one is for this verifier alone.
    """
    head = token.partition(".")[0]
    if head == _HEAD:
        return True
    try:
        return str(jwt.get_unverified_header(token).get("alg", "")).upper().startswith("HS")
    except (jwt.PyJWTError, ValueError, RecursionError):
        return False


def _identity(claims: dict[str, object]) -> Identity:
    subject, tenant_id, principal = claims["sub"], claims.get("act_for"), claims.get("obo")
    if not isinstance(subject, str) or not subject.startswith("service:"):
        raise ValueError("not a service")
    if not isinstance(tenant_id, (str, type(None))) or not isinstance(principal, (str, type(None))):
        raise TypeError("claims of a wrong type")
    return Identity(
        kind=CallerKind.SERVICE,
        tenant_id=UUID(tenant_id) if tenant_id is not None else None,
        principal=subject,
        on_behalf_of=principal,
        service=subject.removeprefix("service:"),
    )


def _invalid() -> Unauthenticated:
    # The metadata tells a peer that its own token is at fault, and not the key that it asks about.
    return Unauthenticated(
        "The service token is not valid.", reason="CREDENTIAL_INVALID", metadata={"credential": "service_token"}
    )
