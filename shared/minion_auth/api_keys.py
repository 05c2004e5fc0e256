"""API keys: random, shown once, stored as a digest."""

import hashlib
import re
import secrets
from dataclasses import dataclass

PREFIX = "mnk_"
_VISIBLE = 12
# 32 random bytes in base64url. An upper bound is checked before anything is hashed.
_FORM = re.compile(r"mnk_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class ApiKeySecret:
    """A new key. Only `prefix` and `digest` are stored; `secret` is given to its owner once and never again."""

    secret: str
    prefix: str
    digest: bytes

    def __repr__(self) -> str:
        return f"ApiKeySecret(prefix={self.prefix!r})"


def generate() -> ApiKeySecret:
    """Makes a key of 256 random bits."""
    secret = PREFIX + secrets.token_urlsafe(32)
    return ApiKeySecret(secret=secret, prefix=secret[:_VISIBLE], digest=digest(secret))


def digest(secret: str) -> bytes:
    """Gives the SHA-256 that a key is stored and looked up by. A slow hash would add nothing: the key is random."""
    return hashlib.sha256(secret.encode()).digest()


def is_well_formed(secret: str) -> bool:
    """Tells whether text can be a key at all, which spares the lookup of what can't."""
    return _FORM.fullmatch(secret) is not None
