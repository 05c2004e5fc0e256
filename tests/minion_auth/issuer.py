"""An identity provider for tests: keys of each kind, their public set, and tokens, good ones and any others."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER = "https://issuer.example/"
AUDIENCE = "minion-api"


def encode(data: bytes) -> str:
    """Writes base64url as tokens have it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(content: object) -> str:
    """Writes a token's part: bytes as they are, all else as JSON."""
    return encode(content if isinstance(content, bytes) else json.dumps(content, separators=(",", ":")).encode())


@cache
def private_key(kind: str, name: str = "") -> Any:
    """Makes the private key of a kind: RSA, RSA1024, P-256, P-384, P-521 or Ed25519; `name` tells several apart."""
    del name
    if kind.startswith("RSA"):
        return rsa.generate_private_key(65537, int(kind[3:] or 2_048))
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    curves: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
    return ec.generate_private_key(curves[kind])


def public_jwk(key: Any, key_id: str | None, **members: Any) -> dict[str, Any]:
    """Writes a key's public half as a JWK."""
    return {**_algorithm(key).to_jwk(key.public_key(), as_dict=True), "kid": key_id, "use": "sig", **members}


def _algorithm(key: Any) -> Any:
    if isinstance(key, rsa.RSAPrivateKey):
        return jwt.algorithms.RSAAlgorithm
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return jwt.algorithms.OKPAlgorithm
    return jwt.algorithms.ECAlgorithm


@dataclass
class Issuer:
    """Who signs tokens for a tenant's users."""

    tenant_id: UUID
    now: Callable[[], float] = time.time
    keys: list[dict[str, Any]] = field(
        default_factory=lambda: [
            public_jwk(private_key("RSA"), "rsa", alg="RS256"),
            public_jwk(private_key("RSA", "second"), "any-rsa"),
            public_jwk(private_key("P-256"), "p256"),
            public_jwk(private_key("P-384"), "p384"),
            public_jwk(private_key("Ed25519"), "ed"),
            public_jwk(private_key("RSA", "encrypts"), "encrypts", use="enc"),
            public_jwk(private_key("RSA", "twin"), "twin"),
            public_jwk(private_key("P-256", "twin"), "twin"),
            public_jwk(private_key("RSA1024"), "short"),
            {"kty": "oct", "k": encode(b"k" * 32), "kid": "oct", "use": "sig"},
        ]
    )

    def document(self) -> bytes:
        """Writes the public set."""
        return json.dumps({"keys": self.keys}).encode()

    def publish(self, path: Path) -> Path:
        """Writes the public set to a file."""
        path.write_bytes(self.document())
        return path

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Gives the claims of a good token, changed; None leaves one out."""
        now = int(self.now())
        made = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ada",
            "iat": now,
            "nbf": now,
            "exp": now + 600,
            "minion_tenant": str(self.tenant_id),
            "scope": "sessions.* agents.*",
            **changes,
        }
        return {name: value for name, value in made.items() if value is not None}

    def token(
        self,
        claims: Mapping[str, Any] | bytes | None = None,
        *,
        header: Mapping[str, Any] | None = None,
        algorithm: str = "RS256",
        key_id: str | None = "rsa",
        key: Any = None,
    ) -> str:
        """Signs a token; a good one unless something is changed. A header's value of None leaves it out."""
        made = {"alg": algorithm, "typ": "JWT", "kid": key_id, **(header or {})}
        head = {name: value for name, value in made.items() if value is not None}
        return self.signed(part(head), part(self.claims() if claims is None else claims), algorithm, key)

    def signed(self, head: str, body: str, algorithm: str = "RS256", key: Any = None) -> str:
        """Signs two parts, whatever they are."""
        algorithms = jwt.algorithms.get_default_algorithms()
        signature = algorithms[algorithm].sign(f"{head}.{body}".encode(), key or private_key("RSA"))
        return f"{head}.{body}.{encode(signature)}"


def hmac_signed(head: Mapping[str, Any], claims: Mapping[str, Any], secret: bytes) -> str:
    """Signs a token with a shared secret, whatever that is."""
    name = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}[head["alg"]]
    signing_input = f"{part(dict(head))}.{part(dict(claims))}"
    return f"{signing_input}.{encode(hmac.new(secret, signing_input.encode(), getattr(hashlib, name)).digest())}"
